//! The one layer of the global subscriber: decides what is logged, and makes it a line.
//!
//! Events become lines; spans are let through to the registry and not shown. The level is an
//! atomic, and the interest cached at every callsite is rebuilt when it changes, so an event below
//! the level costs its caller one load and one comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::level::Level;
use crate::record::Scratch;
use crate::sink::Sink;

/// The level in force, shared by the layer and the handles.
#[derive(Debug)]
pub(crate) struct LevelCell(AtomicU8);

impl LevelCell {
    pub(crate) fn set(&self, level: Level) {
        self.0.store(level.to_index(), Ordering::Release);
        tracing::callsite::rebuild_interest_cache();
    }

    fn filter(&self) -> LevelFilter {
        Level::from_index(self.0.load(Ordering::Acquire)).filter()
    }
}

/// Formats events and hands them to the sink.
#[derive(Debug)]
pub(crate) struct LineLayer {
    sink: Arc<Sink>,
    level: Arc<LevelCell>,
}

impl LineLayer {
    pub(crate) fn new(sink: Arc<Sink>, level: Level) -> LineLayer {
        LineLayer { sink, level: Arc::new(LevelCell(AtomicU8::new(level.to_index()))) }
    }

    pub(crate) fn level(&self) -> Arc<LevelCell> {
        Arc::clone(&self.level)
    }

    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level.filter()
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.admits(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.admits(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let writer = self.sink.writer();
        let mut scratch = Scratch::of(event, writer.format());
        let pid = writer.identity.pid();
        let line = scratch.line(writer.head(*event.metadata().level(), pid));
        self.sink.submit(pid, line.as_bytes());
        scratch.put_back();
    }
}

#[cfg(test)]
mod tests;
