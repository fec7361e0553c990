//! A status as JSON: one object, whose keys only ever become more.

use serde_json::{Value, json};

use super::gather::{Condition, Report, Row};
use crate::output::SCHEMA;

/// All services in one object.
pub(super) fn services(reports: &[Report]) -> Value {
    json!({"schema": SCHEMA, "services": reports.iter().map(service).collect::<Vec<_>>()})
}

fn service(report: &Report) -> Value {
    let mut object = match &report.service {
        Some(service) => json!(service),
        None => json!({
            "state": state(report.condition),
            "target": null,
            "ready": 0,
            "generation": null,
            "master_pid": null,
            "uptime_s": null,
            "crash_loop": false,
            "last_error": report.why.as_ref().map(ToString::to_string),
            "listeners": [],
            "reloads": null,
            "log": null,
            "made_from": null,
        }),
    };
    object["name"] = report.name.as_str().into();
    object["instance"] = report.instance.into();
    let config = report.config.as_ref().map(|path| path.display().to_string());
    object["config"] = config.into();
    object["workers"] = report.workers.iter().map(worker).collect();
    object
}

fn state(condition: Condition) -> &'static str {
    match condition {
        Condition::Ready | Condition::Degraded => "running",
        Condition::NotRunning => "not_running",
        Condition::Dead | Condition::DeadLocked => "dead",
        Condition::Unknown => "unknown",
    }
}

fn worker(row: &Row) -> Value {
    let mut object = json!(row.worker);
    object["cpu_percent"] = json!(row.cpu_percent);
    object["rss_bytes"] = json!(row.rss_bytes);
    object
}
