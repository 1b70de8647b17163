//! Functions after which the process may not reach the attach socket any more. What it has inherited it takes into use by an attachment of
//! its own, which has to be there before.

use std::ffi::{c_char, c_int};

use libc::{gid_t, uid_t};

use crate::memory::In;
use crate::{process, real};

macro_rules! attached_before {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> c_int {
            process::attach_heir();
            real::$name($($argument),*)
        }
    )*};
}

attached_before! {
    setuid(id: uid_t);
    seteuid(id: uid_t);
    setreuid(id: uid_t, effective: uid_t);
    setresuid(id: uid_t, effective: uid_t, saved: uid_t);
    setgid(id: gid_t);
    setegid(id: gid_t);
    setregid(id: gid_t, effective: gid_t);
    setresgid(id: gid_t, effective: gid_t, saved: gid_t);
    setgroups(count: usize, ids: In<gid_t>);
    initgroups(user: In<c_char>, id: gid_t);
    chroot(path: In<c_char>);
}
