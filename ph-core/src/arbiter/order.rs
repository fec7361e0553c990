//! The operator's wishes, and the one table of the signals that carry them.

/// Something the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop gracefully; said again: at once.
    Stop,
    /// So many workers more (or fewer).
    ScaleBy(i32),
    /// Exactly so many workers.
    ScaleTo(u32),
    /// Reopen the log files.
    Reopen,
}

impl Order {
    /// Whether this order goes before all others that came with it (I14).
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        match self {
            Self::Stop => true,
            Self::ScaleBy(_) | Self::ScaleTo(_) | Self::Reopen => false,
        }
    }
}

/// A signal to the master and what it means.
#[derive(Clone, Copy, Debug)]
pub struct OrderRow {
    /// The signal's name, as in `kill -l`, with SIG.
    pub signal: &'static str,
    /// The order it carries; `None`: it is caught and changes nothing.
    pub order: Option<Order>,
    /// One sentence for people.
    pub meaning: &'static str,
}

/// Every signal a master answers. The names and meanings are gunicorn's, but for QUIT and INT, which
/// stop as gracefully as TERM does.
pub const ORDERS: &[OrderRow] = &[
    row("SIGTERM", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGINT", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGQUIT", Some(Order::Stop), "stop; a second one: at once"),
    row("SIGTTIN", Some(Order::ScaleBy(1)), "one worker more"),
    row("SIGTTOU", Some(Order::ScaleBy(-1)), "one worker fewer"),
    row("SIGUSR1", Some(Order::Reopen), "reopen the log files"),
    row("SIGHUP", None, "nothing: this version cannot reload; the master is not ended by it"),
    row("SIGUSR2", None, "nothing: this version cannot upgrade; the master is not ended by it"),
];

const fn row(signal: &'static str, order: Option<Order>, meaning: &'static str) -> OrderRow {
    OrderRow { signal, order, meaning }
}
