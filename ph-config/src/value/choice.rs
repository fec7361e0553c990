//! Settings that are one word of a closed list.

use std::fmt;

use super::{Kind, Schema, Shape, ValueError};

/// Writes the enum of a closed list, its canonical words and the function that reads them.
macro_rules! choice {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$item_doc])* $item),* }

        impl $name {
            /// Every choice, in the order of the reference.
            pub const ALL: &[$name] = &[$($name::$item),*];

            const WORDS: &[&str] = &[$($word),*];

            /// The word for it in a file.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$item => $word),* }
            }

            /// Ignores case.
            fn named(text: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|choice| choice.as_str().eq_ignore_ascii_case(text))
            }

            fn expected() -> String {
                let words: Vec<&str> = Self::ALL.iter().map(|choice| choice.as_str()).collect();
                format!("one of {}", words.join(", "))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// The signal that asks a worker to stop: `stop_signal`.
    ///
    /// A name and not a number, because numbers differ between machines. SIGKILL is not among
    /// them: a stop that gives no time is `graceful_timeout = 0`.
    StopSignal {
        /// SIGTERM, the usual one.
        Term = "TERM",
        /// SIGINT, what Ctrl-C sends.
        Int = "INT",
        /// SIGQUIT, a graceful stop for nginx and php-fpm.
        Quit = "QUIT",
        /// SIGHUP.
        Hup = "HUP",
        /// SIGUSR1.
        Usr1 = "USR1",
        /// SIGUSR2.
        Usr2 = "USR2",
        /// SIGWINCH, a graceful stop for Apache httpd.
        Winch = "WINCH",
    }
}

choice! {
    /// The signal that tells a worker that it is stuck: `abort_signal`.
    AbortSignal {
        /// SIGABRT, which ends it and leaves a core dump.
        Abrt = "ABRT",
        /// SIGQUIT, at which Go and Java programs print their stacks.
        Quit = "QUIT",
        /// SIGTERM.
        Term = "TERM",
        /// SIGINT.
        Int = "INT",
        /// SIGHUP.
        Hup = "HUP",
        /// SIGUSR1.
        Usr1 = "USR1",
        /// SIGUSR2.
        Usr2 = "USR2",
    }
}

choice! {
    /// Whom the last signal of a stop reaches: `kill_mode`, as in systemd.
    KillMode {
        /// Everything that descends from the worker.
        Tree = "tree",
        /// The worker's process group.
        Group = "group",
        /// The worker alone.
        Process = "process",
    }
}

choice! {
    /// What workers are: `worker_class`.
    WorkerClass {
        /// Any program, executed.
        Command = "command",
        /// The program's own code, one request at a time.
        Sync = "sync",
        /// The program's own code, one request on each of its threads.
        Thread = "thread",
        /// The program's own code, requests as tasks of a runtime.
        Async = "async",
    }
}

choice! {
    /// What follows from a crash loop: `on_crash_loop`.
    OnCrashLoop {
        /// Try again, ever more slowly.
        Retry = "retry",
        /// End the service: whoever keeps it decides.
        Exit = "exit",
    }
}

choice! {
    /// The least grave log line that is still written: `log_level`.
    LogLevel {
        /// Only what failed; gunicorn's `critical` is read as this too.
        Error = "error",
        /// And what may soon fail; also written `warning`.
        Warn = "warn",
        /// And what happened.
        Info = "info",
        /// And why it happened.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

choice! {
    /// How a log line is written: `log_format`.
    LogFormat {
        /// For eyes.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// When a log is rotated for its age: `log_rotate`.
    LogRotate {
        /// Only for its size.
        Never = "never",
        /// At every full hour.
        Hourly = "hourly",
        /// At midnight.
        Daily = "daily",
    }
}

choice! {
    /// What becomes of the backups of a log from the second on: `log_compress`.
    LogCompress {
        /// They stay as they are.
        None = "none",
        /// `.gz`.
        Gzip = "gzip",
        /// `.zst`.
        Zstd = "zstd",
    }
}

choice! {
    /// What happens to what workers print while the log takes nothing: `log_overflow`.
    LogOverflow {
        /// Whoever prints more than its pipe holds waits.
        Block = "block",
        /// It is dropped, and counted.
        Drop = "drop",
    }
}

choice! {
    /// What an unknown key is: `extra_keys`.
    ExtraKeys {
        /// An error.
        Refuse = "refuse",
        /// A warning.
        Allow = "allow",
    }
}

pub(crate) const STOP_SIGNAL: Kind<StopSignal> = Kind {
    name: "signal: TERM, INT, QUIT, HUP, USR1, USR2 or WINCH",
    shape: Shape::Line,
    schema: Schema::Choice {
        words: StopSignal::WORDS,
        aliases: &["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"],
    },
    parse: |text, _| {
        let bare = without_prefix(text);
        StopSignal::named(bare).ok_or_else(|| {
            let mend = if bare.eq_ignore_ascii_case("KILL") {
                "to give a worker no time, write graceful_timeout = 0"
            } else {
                "write the name of the signal, with or without SIG"
            };
            ValueError::new(StopSignal::expected(), mend)
        })
    },
    write: StopSignal::to_string,
};

pub(crate) const ABORT_SIGNAL: Kind<AbortSignal> = Kind {
    name: "signal: ABRT, QUIT, TERM, INT, HUP, USR1 or USR2",
    shape: Shape::Line,
    schema: Schema::Choice {
        words: AbortSignal::WORDS,
        aliases: &["SIGABRT", "SIGQUIT", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"],
    },
    parse: |text, _| {
        let bare = without_prefix(text);
        AbortSignal::named(bare).ok_or_else(|| {
            let mend = if bare.eq_ignore_ascii_case("KILL") {
                "SIGKILL follows by itself; write graceful_timeout = 0 to have it at once"
            } else {
                "write the name of the signal, with or without SIG"
            };
            ValueError::new(AbortSignal::expected(), mend)
        })
    },
    write: AbortSignal::to_string,
};

/// The name of a signal without its `SIG`.
fn without_prefix(text: &str) -> &str {
    // `get`, since the text may have any character at that place.
    match text.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("SIG") => &text[3..],
        _ => text,
    }
}

pub(crate) const KILL_MODE: Kind<KillMode> = Kind {
    name: "tree, group or process",
    shape: Shape::Line,
    schema: Schema::Choice { words: KillMode::WORDS, aliases: &[] },
    parse: |text, _| {
        KillMode::named(text)
            .ok_or_else(|| ValueError::new(KillMode::expected(), "write one of these words"))
    },
    write: KillMode::to_string,
};

pub(crate) const WORKER_CLASS: Kind<Option<WorkerClass>> = Kind {
    name: "command, sync, thread or async",
    shape: Shape::Line,
    schema: Schema::Choice { words: WorkerClass::WORDS, aliases: &[] },
    parse: |text, _| {
        if text.is_empty() {
            return Ok(None);
        }
        let class = WorkerClass::named(text).map(Some);
        class.ok_or_else(|| ValueError::new(WorkerClass::expected(), "write one of these words"))
    },
    write: |class| class.map_or_else(String::new, |class| class.to_string()),
};

pub(crate) const ON_CRASH_LOOP: Kind<OnCrashLoop> = Kind {
    name: "retry or exit",
    shape: Shape::Line,
    schema: Schema::Choice { words: OnCrashLoop::WORDS, aliases: &[] },
    parse: |text, _| {
        OnCrashLoop::named(text)
            .ok_or_else(|| ValueError::new(OnCrashLoop::expected(), "write one of these words"))
    },
    write: OnCrashLoop::to_string,
};

pub(crate) const LOG_LEVEL: Kind<LogLevel> = Kind {
    name: "error, warn, info, debug or trace",
    shape: Shape::Line,
    schema: Schema::Choice { words: LogLevel::WORDS, aliases: &["warning", "critical"] },
    parse: |text, _| match text.to_ascii_lowercase().as_str() {
        "warning" => Ok(LogLevel::Warn),
        "critical" => Ok(LogLevel::Error),
        word => LogLevel::named(word)
            .ok_or_else(|| ValueError::new(LogLevel::expected(), "write one of these words")),
    },
    write: LogLevel::to_string,
};

pub(crate) const LOG_FORMAT: Kind<LogFormat> = Kind {
    name: "text or json",
    shape: Shape::Line,
    schema: Schema::Choice { words: LogFormat::WORDS, aliases: &[] },
    parse: |text, _| {
        LogFormat::named(text)
            .ok_or_else(|| ValueError::new(LogFormat::expected(), "write one of these words"))
    },
    write: LogFormat::to_string,
};

pub(crate) const LOG_ROTATE: Kind<LogRotate> = Kind {
    name: "never, hourly or daily",
    shape: Shape::Line,
    schema: Schema::Choice { words: LogRotate::WORDS, aliases: &[] },
    parse: |text, _| {
        LogRotate::named(text)
            .ok_or_else(|| ValueError::new(LogRotate::expected(), "write one of these words"))
    },
    write: LogRotate::to_string,
};

pub(crate) const LOG_COMPRESS: Kind<LogCompress> = Kind {
    name: "none, gzip or zstd",
    shape: Shape::Line,
    schema: Schema::Choice { words: LogCompress::WORDS, aliases: &[] },
    parse: |text, _| {
        LogCompress::named(text)
            .ok_or_else(|| ValueError::new(LogCompress::expected(), "write one of these words"))
    },
    write: LogCompress::to_string,
};

pub(crate) const LOG_OVERFLOW: Kind<LogOverflow> = Kind {
    name: "block or drop",
    shape: Shape::Line,
    schema: Schema::Choice { words: LogOverflow::WORDS, aliases: &[] },
    parse: |text, _| {
        LogOverflow::named(text)
            .ok_or_else(|| ValueError::new(LogOverflow::expected(), "write one of these words"))
    },
    write: LogOverflow::to_string,
};

pub(crate) const EXTRA_KEYS: Kind<ExtraKeys> = Kind {
    name: "refuse or allow",
    shape: Shape::Line,
    schema: Schema::Choice { words: ExtraKeys::WORDS, aliases: &[] },
    parse: |text, _| {
        ExtraKeys::named(text)
            .ok_or_else(|| ValueError::new(ExtraKeys::expected(), "write one of these words"))
    },
    write: ExtraKeys::to_string,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_with_and_without_their_prefix() {
        let folders = super::super::Folders { here: "/".into(), base: "/".into() };
        let read = |text| (STOP_SIGNAL.parse)(text, &folders).ok();
        assert_eq!(read("TERM"), Some(StopSignal::Term));
        assert_eq!(read("SIGQUIT"), Some(StopSignal::Quit));
        assert_eq!(read("sigusr2"), Some(StopSignal::Usr2));
        for bad in ["", "SIG", "9", "KILL", "SIGSTOP", "日本", "SIGSIGTERM"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
