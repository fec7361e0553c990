//! Panics of a user's code: caught where the worker can go on, and logged with their backtrace.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of the user; `None` if it panicked, which the hook has logged.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // Its destructor is the user's code as well, and may panic in its turn.
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                #[expect(clippy::mem_forget, reason = "somewhere it has to end")]
                std::mem::forget(another);
            }
            None
        }
    }
}

/// A panic of this process goes to the log, with its place and its backtrace; then the log is flushed.
pub(super) fn log_them(flush: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let payload = panic.payload_as_str().unwrap_or("(no message)");
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!("panicked at {place}: {payload}\n{backtrace}");
        flush();
    }));
}
