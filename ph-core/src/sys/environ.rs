//! Environments of workers, made whole before the fork: a child only takes one over.

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr;

unsafe extern "C" {
    /// The C library's pointer to the environment, which Rust's `std::env` reads too.
    static mut environ: *const *const c_char;
}

/// The variables all workers of a master have in common.
#[derive(Debug)]
pub(crate) struct Environment(Vec<CString>);

/// One worker's variables, as C wants them.
pub(crate) struct Table {
    /// What the pointers of this worker's own variables point to.
    _own: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Environment {
    /// Takes variables over. A NUL byte in one is refused.
    pub(crate) fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let strings = variables.into_iter().map(|(name, value)| variable(&name, &value));
        Ok(Self(strings.collect::<io::Result<_>>()?))
    }

    /// The table of a worker with variables of its own, and some more whose text the caller keeps.
    pub(crate) fn table(
        &self,
        own: &[(OsString, OsString)],
        extra: &[*const c_char],
    ) -> io::Result<Table> {
        let own = own.iter().map(|(name, value)| variable(name, value));
        let own = own.collect::<io::Result<Vec<_>>>()?;
        let strings = self.0.iter().chain(&own).map(|variable| variable.as_ptr());
        let pointers = strings.chain(extra.iter().copied()).chain([ptr::null()]).collect();
        Ok(Table { _own: own, pointers })
    }
}

impl Table {
    /// The variables, with a null pointer at the end.
    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// Makes this the environment of a freshly forked child, for the rest of its life.
    pub(crate) fn take_over(&self) {
        // SAFETY: the child has one thread, so nobody reads the environment meanwhile; the table and
        // all it points to are never freed, because the child leaves by `_exit` from within the
        // frame that holds them.
        unsafe { environ = self.as_ptr() };
    }
}

/// Takes a variable out of this process's own environment.
pub(crate) fn forget(name: &str) {
    // SAFETY: a master has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
}

/// A C string without its NUL byte inside, or an error that says so.
pub(crate) fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"))
}

fn variable(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    c_string(text)
}
