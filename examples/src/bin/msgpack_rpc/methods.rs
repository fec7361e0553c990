//! What can be asked.

use std::time::Duration;

use ph_core::Context;
use rmpv::Value;

/// The longest sleep, in milliseconds.
const SLEEP_AT_MOST: u64 = 60_000;

/// How long a worker is silent at most while it sleeps.
const BEAT_EVERY: u64 = 500;

/// Calls a method. An error is for the client.
pub(crate) fn call(
    ctx: &Context,
    requests: u64,
    method: &str,
    params: Vec<Value>,
) -> Result<Value, String> {
    match method {
        "add" => add(&params),
        "echo" => match <[Value; 1]>::try_from(params) {
            Ok([value]) => Ok(value),
            Err(params) => Err(format!("echo wants one value, got {}", params.len())),
        },
        "sleep" => sleep(ctx, &params),
        "stats" => Ok(stats(ctx, requests)),
        _ => Err(format!("there is no method {method:?}: try add, echo, sleep or stats")),
    }
}

fn add(params: &[Value]) -> Result<Value, String> {
    let [a, b] = params else {
        return Err(format!("add wants two integers, got {}", params.len()));
    };
    let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) else {
        return Err(format!("add wants two integers of 64 bits, got {a} and {b}"));
    };
    a.checked_add(b).map(Value::from).ok_or_else(|| format!("{a} + {b} has more than 64 bits"))
}

/// A request that takes its time is finished, whatever else is asked of the worker meanwhile.
fn sleep(ctx: &Context, params: &[Value]) -> Result<Value, String> {
    let millis = match params {
        [millis] => millis.as_u64(),
        _ => None,
    };
    let wrong = || format!("sleep wants a number of milliseconds, {SLEEP_AT_MOST} at most");
    let millis = millis.filter(|millis| *millis <= SLEEP_AT_MOST).ok_or_else(wrong)?;
    let mut left = millis;
    while left > 0 {
        let now = left.min(BEAT_EVERY);
        wait(Duration::from_millis(now));
        ctx.beat();
        left -= now;
    }
    Ok(Value::from(millis))
}

#[expect(clippy::disallowed_methods, reason = "a request is finished; ctx.sleep ends with a stop")]
fn wait(span: Duration) {
    std::thread::sleep(span);
}

fn stats(ctx: &Context, requests: u64) -> Value {
    let numbers = [
        ("pid", u64::from(ctx.pid())),
        ("slot", u64::from(ctx.slot())),
        ("generation", u64::from(ctx.generation())),
        ("requests", requests),
    ];
    Value::Map(numbers.map(|(key, number)| (Value::from(key), Value::from(number))).into())
}
