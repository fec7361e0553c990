//! Where lines go: files that are opened when they are needed, or stderr; and for each the sources
//! that wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::LogError;
use crate::rotate::RotateLimits;
use crate::rotating::{RotateOptions, RotatingFile};

/// The most files that are open at a time.
const OPEN_MAX: usize = 64;

/// The place of everything that has none of its own.
pub(super) const MAIN: usize = 0;

/// A file or stderr.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: stderr.
    pub(super) path: Option<PathBuf>,
    file: Option<RotatingFile>,
    used: u64,
    /// Sources that write here.
    pub(super) sources: usize,
    /// Those of them that may have something.
    pub(super) ready: VecDeque<u64>,
    /// Writing failed, and is tried again then.
    pub(super) retry_at: Option<Duration>,
    /// Stderr takes nothing at the moment.
    pub(super) is_stalled: bool,
    /// Its file could not be opened, and is not tried before that.
    pub(super) open_at: Duration,
    /// Why not, until that is told.
    pub(super) trouble: Option<String>,
}

/// All places, by number.
#[derive(Debug)]
pub(super) struct Places {
    limits: RotateLimits,
    places: BTreeMap<usize, Place>,
    next: usize,
    uses: u64,
}

impl Places {
    /// The main place, whose file is opened.
    pub(super) fn open(path: Option<PathBuf>, limits: RotateLimits) -> Result<Places, LogError> {
        let mut main = Place::new(path);
        if let Some(path) = &main.path {
            main.file = Some(RotatingFile::open(RotateOptions::new(path, limits.clone()))?);
        }
        Ok(Places { limits, places: BTreeMap::from([(MAIN, main)]), next: MAIN + 1, uses: 0 })
    }

    /// The place for a source with this path.
    pub(super) fn enter(&mut self, path: Option<&Path>) -> usize {
        let found = match path {
            None => Some(MAIN),
            Some(path) => self.named(path),
        };
        let number = found.unwrap_or_else(|| {
            let number = self.next;
            self.next += 1;
            self.places.insert(number, Place::new(path.map(Path::to_owned)));
            number
        });
        if let Some(place) = self.places.get_mut(&number) {
            place.sources += 1;
        }
        number
    }

    fn named(&self, path: &Path) -> Option<usize> {
        let mut places = self.places.iter();
        places.find(|(_, place)| place.path.as_deref() == Some(path)).map(|(number, _)| *number)
    }

    /// A source of this place is no more.
    pub(super) fn leave(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(&number) else { return };
        place.sources = place.sources.saturating_sub(1);
        if place.sources == 0 && number != MAIN {
            self.places.remove(&number);
        }
    }

    pub(super) fn get(&mut self, number: usize) -> Option<&mut Place> {
        self.places.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().map(|(number, place)| (*number, place))
    }

    pub(super) fn numbers(&self) -> Vec<usize> {
        self.places.keys().copied().collect()
    }

    /// The open file of a place. `None` if it is stderr.
    pub(super) fn file(&mut self, number: usize) -> io::Result<Option<&mut RotatingFile>> {
        self.make_room(number);
        self.uses += 1;
        let (uses, limits) = (self.uses, &self.limits);
        let Some(place) = self.places.get_mut(&number) else { return Ok(None) };
        place.used = uses;
        place.open(limits)
    }

    /// As [`file`](Places::file), for somebody who gives it back.
    pub(super) fn take_file(&mut self, number: usize) -> io::Result<Option<RotatingFile>> {
        self.file(number)?;
        Ok(self.places.get_mut(&number).and_then(|place| place.file.take()))
    }

    pub(super) fn return_file(&mut self, number: usize, file: RotatingFile) {
        if let Some(place) = self.places.get_mut(&number) {
            place.file = Some(file);
        }
    }

    /// The file with this path, if lines of a batch that was cut off may be there.
    pub(super) fn file_named(&mut self, path: &Path) -> io::Result<RotatingFile> {
        let options = RotateOptions::new(path, self.limits.clone());
        Ok(RotatingFile::open(options)?)
    }

    /// Closes the file that was not used for longest, if one more must be opened.
    fn make_room(&mut self, number: usize) {
        let is_open = |place: &&Place| place.file.is_some();
        let is_needed = self.places.get(&number).is_some_and(|place| place.file.is_none());
        if !is_needed || self.places.values().filter(is_open).count() < OPEN_MAX {
            return;
        }
        let open = self.places.values_mut().filter(|place| place.file.is_some());
        if let Some(place) = open.min_by_key(|place| place.used) {
            place.file = None;
        }
    }

    /// Closes the file of a place. The next use opens what has the name by then.
    pub(super) fn close(&mut self, number: usize) {
        if let Some(place) = self.places.get_mut(&number) {
            place.file = None;
        }
    }

    /// Every file that could not be opened may be tried at once.
    pub(super) fn try_all(&mut self) {
        self.places.values_mut().for_each(|place| place.open_at = Duration::ZERO);
    }

    /// The files that are open now.
    pub(super) fn open_files(&mut self) -> impl Iterator<Item = (usize, &mut RotatingFile)> {
        let places = self.places.iter_mut();
        places.filter_map(|(number, place)| Some((*number, place.file.as_mut()?)))
    }

    pub(super) fn limits(&self) -> &RotateLimits {
        &self.limits
    }
}

impl Place {
    fn new(path: Option<PathBuf>) -> Place {
        Place {
            path,
            file: None,
            used: 0,
            sources: 0,
            ready: VecDeque::new(),
            retry_at: None,
            is_stalled: false,
            open_at: Duration::ZERO,
            trouble: None,
        }
    }

    fn open(&mut self, limits: &RotateLimits) -> io::Result<Option<&mut RotatingFile>> {
        if self.file.is_none()
            && let Some(path) = &self.path
        {
            self.file = Some(RotatingFile::open(RotateOptions::new(path, limits.clone()))?);
        }
        Ok(self.file.as_mut())
    }
}
