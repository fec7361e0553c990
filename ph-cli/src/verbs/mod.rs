//! One module a verb.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod init;
pub(crate) mod logs;
pub(crate) mod probe;
pub(crate) mod rotate;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tell;
