//! Memory of the program: pointers as C programs hand them to functions of the C library. They are null, or valid for what the
//! function's documentation says; the kernel would answer EFAULT to some others, which here end the program.

use std::ffi::{CStr, c_char};
use std::slice;

use xtipc::socket::Errno;

/// Something to be read.
#[repr(transparent)]
pub struct In<T>(*const T);
/// Something to be written.
#[repr(transparent)]
pub struct Out<T>(*mut T);
/// Something to be read and written.
#[repr(transparent)]
pub struct InOut<T>(*mut T);

macro_rules! copies {
    ($($name:ident)*) => {$(
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
    )*};
}
copies! { In Out InOut }

const FAULT: Errno = Errno(libc::EFAULT);

impl<T: Copy> In<T> {
    /// Of a pointer as the program gave it.
    pub fn new(pointer: *const T) -> Self {
        Self(pointer)
    }

    /// None.
    pub fn null() -> Self {
        Self(std::ptr::null())
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// What is there.
    pub fn read(self) -> Result<T, Errno> {
        if self.0.is_null() {
            return Err(FAULT);
        }
        // SAFETY: not null, and so valid.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// So many of them, for as long as the call lasts.
    pub fn slice<'a>(self, len: usize) -> Result<&'a [T], Errno> {
        match (self.0.is_null(), len) {
            (_, 0) => Ok(&[]),
            (true, _) => Err(FAULT),
            // No memory is that long.
            (false, _) if len > isize::MAX as usize / size_of::<T>() => Err(FAULT),
            // SAFETY: not null, and so valid for the length that the caller names beside it.
            (false, _) => Ok(unsafe { slice::from_raw_parts(self.0, len) }),
        }
    }

    /// The bytes of the structure and of what follows it.
    pub fn bytes<'a>(self, len: usize) -> Result<&'a [u8], Errno> {
        In::<u8>(self.0.cast()).slice(len)
    }
}

impl In<c_char> {
    /// The string that begins there, if it is not null.
    pub fn string<'a>(self) -> Option<&'a CStr> {
        // SAFETY: not null, and so a string.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) })
    }
}

impl<T: Copy> Out<T> {
    /// Of a pointer as the program gave it.
    pub fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Puts it there.
    pub fn write(self, value: T) -> Result<(), Errno> {
        if self.0.is_null() {
            return Err(FAULT);
        }
        // SAFETY: not null, and so valid.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// So many of them, for as long as the call lasts.
    pub fn slice<'a>(self, len: usize) -> Result<&'a mut [T], Errno> {
        InOut(self.0).slice(len)
    }

    /// So many bytes.
    pub fn bytes<'a>(self, len: usize) -> Result<&'a mut [u8], Errno> {
        Out::<u8>(self.0.cast()).slice(len)
    }
}

impl<T: Copy> InOut<T> {
    /// Of a pointer as the program gave it.
    pub fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Where it is.
    pub fn address(self) -> usize {
        self.0 as usize
    }

    /// What is there.
    pub fn read(self) -> Result<T, Errno> {
        In(self.0.cast_const()).read()
    }

    /// Puts it there.
    pub fn write(self, value: T) -> Result<(), Errno> {
        Out(self.0).write(value)
    }

    /// So many of them, for as long as the call lasts.
    pub fn slice<'a>(self, len: usize) -> Result<&'a mut [T], Errno> {
        match (self.0.is_null(), len) {
            (_, 0) => Ok(&mut []),
            (true, _) => Err(FAULT),
            // No memory is that long.
            (false, _) if len > isize::MAX as usize / size_of::<T>() => Err(FAULT),
            // SAFETY: not null, and so valid for the length that the caller names beside it; nobody else uses it meanwhile.
            (false, _) => Ok(unsafe { slice::from_raw_parts_mut(self.0, len) }),
        }
    }
}
