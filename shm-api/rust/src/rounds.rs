//! Who makes the rounds of the node that this process is attached to: a daemon does, or, if the node is embedded in this
//! process, whichever of its threads waits.

#[cfg(not(feature = "embedded"))]
use xtipc_segment::{Destination, Meta, application::SHORT_MAX};

#[cfg(feature = "embedded")]
pub(crate) use own::{LookingOn, Rounds};
#[cfg(feature = "embedded")]
pub(crate) use xtipcd::worker::{Caught, Driving, Seen};

#[cfg(feature = "embedded")]
mod own {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use xtipcd::embedded::Embedded;
    use xtipcd::worker::Driving;

    /// The rounds of the node in this process.
    #[derive(Debug)]
    pub(crate) struct Rounds {
        node: Arc<Embedded>,
        /// Somebody looks at descriptors, which change only in rounds: the helper makes them when no thread does.
        watched: AtomicBool,
    }

    impl Rounds {
        pub(crate) fn new(node: Arc<Embedded>) -> Self {
            Self {
                node,
                watched: AtomicBool::new(false),
            }
        }

        /// Takes the rounds over, unless another thread of the application makes them. Not to be called with locks held
        /// that others need: it may wait for the helper to lay them down.
        pub(crate) fn take(&self) -> Option<Driving<'_>> {
            self.node.turn().take()
        }

        /// Takes the rounds over if nobody makes them now.
        pub(crate) fn take_free(&self) -> Option<Driving<'_>> {
            self.node.turn().take_free()
        }

        /// A round, if nobody makes them now.
        pub(crate) fn make_one(&self) {
            if let Some(mut driving) = self.take_free() {
                driving.look();
            }
        }

        /// The calling thread waits for what others' rounds bring, while it keeps what this returns.
        pub(crate) fn look_on(&self) -> LookingOn<'_> {
            self.node.turn().waits();
            LookingOn(self)
        }

        /// From now on somebody looks at a descriptor.
        pub(crate) fn note_watched(&self) {
            if !self.watched.swap(true, Ordering::Relaxed) {
                self.node.turn().waits();
            }
        }
    }

    impl Drop for Rounds {
        fn drop(&mut self) {
            if self.watched.load(Ordering::Relaxed) {
                self.node.turn().no_longer_waits();
            }
        }
    }

    /// See [`Rounds::look_on`].
    #[derive(Debug)]
    pub(crate) struct LookingOn<'a>(&'a Rounds);

    impl Drop for LookingOn<'_> {
        fn drop(&mut self) {
            self.0.node.turn().no_longer_waits();
        }
    }
}

/// Without the feature `embedded` there is none.
#[cfg(not(feature = "embedded"))]
#[derive(Debug)]
pub(crate) enum Rounds {}

#[cfg(not(feature = "embedded"))]
impl Rounds {
    pub(crate) fn take(&self) -> Option<Driving<'_>> {
        match *self {}
    }

    pub(crate) fn take_free(&self) -> Option<Driving<'_>> {
        match *self {}
    }

    pub(crate) fn make_one(&self) {
        match *self {}
    }

    pub(crate) fn look_on(&self) -> LookingOn<'_> {
        match *self {}
    }

    pub(crate) fn note_watched(&self) {
        match *self {}
    }
}

/// What nobody finds.
#[cfg(not(feature = "embedded"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "never made")]
pub(crate) enum Seen {
    Nothing,
    Chores,
    Work,
}

/// What nobody catches.
#[cfg(not(feature = "embedded"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    pub(crate) meta: Meta,
    pub(crate) len: u8,
    pub(crate) bytes: [u8; SHORT_MAX],
}

/// What came of messages that nobody posts.
#[cfg(not(feature = "embedded"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted {
    pub(crate) count: usize,
    pub(crate) failed: Option<i32>,
}

/// Rounds of a node that is not there.
#[cfg(not(feature = "embedded"))]
#[derive(Debug)]
pub(crate) struct Driving<'a>(&'a Rounds);

#[cfg(not(feature = "embedded"))]
impl Driving<'_> {
    pub(crate) fn rest(&mut self, _: Option<u64>) {
        match *self.0 {}
    }

    pub(crate) fn is_over(&self) -> bool {
        match *self.0 {}
    }

    pub(crate) fn looked_ns(&self) -> u64 {
        match *self.0 {}
    }

    pub(crate) fn look(&mut self) -> Seen {
        match *self.0 {}
    }

    pub(crate) fn look_for(&mut self, _: u32) -> (Seen, Option<Caught>) {
        match *self.0 {}
    }

    pub(crate) fn post(
        &mut self,
        _: u32,
        _: Destination,
        _: &mut dyn ExactSizeIterator<Item = &[u8]>,
    ) -> Posted {
        match *self.0 {}
    }
}

/// Never waits.
#[cfg(not(feature = "embedded"))]
#[derive(Debug)]
pub(crate) struct LookingOn<'a>(&'a Rounds);

#[cfg(not(feature = "embedded"))]
impl Drop for LookingOn<'_> {
    fn drop(&mut self) {
        match *self.0 {}
    }
}
