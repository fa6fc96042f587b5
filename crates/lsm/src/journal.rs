//! What was decided and done, and why: one JSON object per line on disk, the last ones in memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use node_api::wire::{Event, EventsPage};

use crate::config::JournalLimits;

/// The journal. Its numbers go on over restarts of the manager.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    limits: JournalLimits,
    file: File,
    bytes: u64,
    kept: VecDeque<Event>,
    last_number: u64,
    is_synced: bool,
}

impl Journal {
    /// Opens or begins the journal, readable by its owner alone. Lines that cannot be read, such as
    /// one cut off by a crash, are passed over.
    ///
    /// # Errors
    ///
    /// If the file can be neither opened nor made.
    pub fn open(path: &Path, limits: JournalLimits) -> io::Result<Self> {
        let mut kept = VecDeque::new();
        for part in [set_aside(path), path.to_owned()] {
            read_events(&part, limits.events_max, &mut kept)?;
        }
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let mut bytes = file.seek(SeekFrom::End(0))?;
        if bytes > 0 && !ends_with_newline(&mut file)? {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        let last_number = kept.back().map_or(0, |event| event.number);
        Ok(Self { path: path.to_owned(), limits, file, bytes, kept, last_number, is_synced: true })
    }

    /// Gives the event its number, keeps it and writes it. An event that cannot be written is kept
    /// in memory all the same: a full disk must not stop the manager.
    ///
    /// # Errors
    ///
    /// If it could not be written.
    pub fn append(&mut self, mut event: Event) -> io::Result<()> {
        self.last_number += 1;
        event.number = self.last_number;
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        self.kept.push_back(event);
        while self.kept.len() > self.limits.events_max {
            self.kept.pop_front();
        }
        self.rotate_for(line.len() as u64)?;
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        self.is_synced = false;
        Ok(())
    }

    /// Brings what was appended to the disk; once per round.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_synced {
            return Ok(());
        }
        self.file.sync_data()?;
        self.is_synced = true;
        Ok(())
    }

    /// Events with numbers above `after`, oldest first.
    #[must_use]
    pub fn events(&self, after: u64, limit: usize) -> EventsPage {
        let first = self.kept.partition_point(|event| event.number <= after);
        let events: Vec<Event> = self.kept.iter().skip(first).take(limit).cloned().collect();
        EventsPage {
            last: events.last().map_or(after, |event| event.number),
            first_kept: self.kept.front().map_or(0, |event| event.number),
            events,
        }
    }

    fn rotate_for(&mut self, more: u64) -> io::Result<()> {
        if self.bytes == 0 || self.bytes + more <= self.limits.bytes_max {
            return Ok(());
        }
        std::fs::rename(&self.path, set_aside(&self.path))?;
        self.file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn read_events(path: &Path, most: usize, kept: &mut VecDeque<Event>) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(&line?) {
            kept.push_back(event);
            if kept.len() > most {
                kept.pop_front();
            }
        }
    }
    Ok(())
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::io::Read;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use node_api::wire::EventKind;

    use super::*;

    fn event(text: &str) -> Event {
        Event {
            number: 0,
            at_ms: 1,
            kind: EventKind::Act,
            tier: None,
            instance: None,
            text: text.to_owned(),
            desired: None,
            before: None,
            load_millicps: None,
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lsm-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn texts(page: &EventsPage) -> Vec<&str> {
        page.events.iter().map(|event| event.text.as_str()).collect()
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line_is_passed_over() {
        let folder = folder("restart");
        let path = folder.join("journal.jsonl");
        let mut journal = Journal::open(&path, JournalLimits::default()).expect("opens");
        journal.append(event("one")).expect("written");
        journal.append(event("two")).expect("written");
        journal.sync().expect("synced");
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(b"{\"number\":3,\"at").expect("written");

        let mut journal = Journal::open(&path, JournalLimits::default()).expect("opens again");
        journal.append(event("three")).expect("written");
        let page = journal.events(1, 10);
        assert_eq!(texts(&page), ["two", "three"]);
        assert_eq!((page.last, page.first_kept), (3, 1));
        drop(journal);
        let journal = Journal::open(&path, JournalLimits::default()).expect("opens once more");
        assert_eq!(texts(&journal.events(0, 10)), ["one", "two", "three"]);
        std::fs::remove_dir_all(folder).ok();
    }

    #[test]
    fn the_journal_is_bounded_on_disk_and_in_memory() {
        let folder = folder("bounded");
        let path = folder.join("journal.jsonl");
        let limits = JournalLimits { bytes_max: 300, events_max: 4 };
        let mut journal = Journal::open(&path, limits).expect("opens");
        for number in 0..50 {
            journal.append(event(&format!("event {number}"))).expect("written");
        }
        assert_eq!(texts(&journal.events(0, 2)), ["event 46", "event 47"]);
        for part in [path.clone(), set_aside(&path)] {
            assert!(std::fs::metadata(&part).expect("there").len() <= 300, "{part:?}");
        }
        drop(journal);
        let journal = Journal::open(&path, limits).expect("opens again");
        assert_eq!(journal.events(49, 9).last, 50, "read over both files");
        std::fs::remove_dir_all(folder).ok();
    }
}
