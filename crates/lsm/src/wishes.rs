//! What operators asked for: drains and weights. It is all that a manager cannot find again in the
//! fleet, so it is written down beside the journal, for whoever leads next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fleet::{InstanceId, WEIGHT_NORMAL};
use node_api::wire::{DrainWish, WeightWish, Wishes};

use crate::observe::Place;

/// The wishes as the leader knows them, and their file.
#[derive(Debug)]
pub(crate) struct WishList {
    path: PathBuf,
    wishes: Wishes,
}

impl WishList {
    /// Nothing is asked for, as far as is known.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, wishes: Wishes::default() }
    }

    /// Reads what earlier leaders wrote down.
    ///
    /// # Errors
    ///
    /// If there is a file that cannot be read: it stays as it is.
    pub(crate) fn load(&mut self) -> io::Result<()> {
        self.wishes = Wishes::default();
        self.wishes = read(&self.path)?;
        Ok(())
    }

    pub(crate) fn forget_all(&mut self) {
        self.wishes = Wishes::default();
    }

    /// Which of these machines are to be drained. A wish for another machine in a slot is over; one for
    /// a machine that is not listed is kept, since the list may be partial.
    pub(crate) fn drained(&mut self, machines: &[Place]) -> BTreeSet<InstanceId> {
        let is_over = |wish: &DrainWish| {
            let mut machines = machines.iter();
            machines.any(|place| place.instance == wish.instance && !is_meant(wish, place))
        };
        if self.wishes.drains.iter().any(is_over) {
            // Whether or not it is written down: the wish will not be met again.
            self.change(|wishes| wishes.drains.retain(|wish| !is_over(wish))).ok();
        }
        let is_asked = |place: &&Place| self.wishes.drains.iter().any(|wish| is_meant(wish, place));
        machines.iter().filter(is_asked).map(|place| place.instance).collect()
    }

    /// Whether it was news. The result says whether it is written down; it is taken either way.
    pub(crate) fn drain(&mut self, wish: DrainWish) -> (bool, io::Result<()>) {
        if self.wishes.drains.contains(&wish) {
            return (false, Ok(()));
        }
        let instance = wish.instance;
        let written = self.change(|wishes| {
            wishes.drains.retain(|other| other.instance != instance);
            wishes.drains.push(wish.clone());
        });
        (true, written)
    }

    /// As [`drain`](Self::drain), for the contrary.
    pub(crate) fn keep(&mut self, instance: InstanceId) -> (bool, io::Result<()>) {
        if !self.wishes.drains.iter().any(|wish| wish.instance == instance) {
            return (false, Ok(()));
        }
        let is_other = |wish: &DrainWish| wish.instance != instance;
        (true, self.change(|wishes| wishes.drains.retain(is_other)))
    }

    /// The weight before, and whether the new one is written down; it is taken either way.
    pub(crate) fn weigh(&mut self, instance: InstanceId, weight: u16) -> (u16, io::Result<()>) {
        let before = self.weights().get(&instance).copied().unwrap_or(WEIGHT_NORMAL);
        if before == weight {
            return (before, Ok(()));
        }
        let written = self.change(|wishes| {
            wishes.weights.retain(|other| other.instance != instance);
            if weight != WEIGHT_NORMAL {
                wishes.weights.push(WeightWish { instance, weight });
            }
        });
        (before, written)
    }

    /// Weights other than the ordinary one.
    pub(crate) fn weights(&self) -> BTreeMap<InstanceId, u16> {
        self.wishes.weights.iter().map(|wish| (wish.instance, wish.weight)).collect()
    }

    /// Changes what is known and then what the file says: another manager may have led meanwhile.
    fn change(&mut self, change: impl Fn(&mut Wishes)) -> io::Result<()> {
        change(&mut self.wishes);
        let mut written = read(&self.path)?;
        change(&mut written);
        write(&self.path, &written)
    }
}

fn is_meant(wish: &DrainWish, place: &Place) -> bool {
    let born = (place.instance, &place.machine, place.created_at_ms);
    born == (wish.instance, &wish.machine, wish.created_at_ms)
}

fn read(path: &Path) -> io::Result<Wishes> {
    let wrong =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| wrong(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Wishes::default()),
        Err(error) => Err(wrong(error)),
    }
}

/// A reader sees all of it or what was there before.
fn write(path: &Path, wishes: &Wishes) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(wishes)?)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaling::MachineState;

    fn place(slot: u16, created_at_ms: u64) -> Place {
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], slot));
        Place {
            instance: InstanceId::proxy(slot),
            machine: format!("machine-{slot}"),
            state: MachineState::Running,
            created_at_ms,
            with: provider::Addresses { sip: at, control: at },
        }
    }

    fn wish(place: &Place) -> DrainWish {
        let (instance, created_at_ms) = (place.instance, place.created_at_ms);
        DrainWish { instance, machine: place.machine.clone(), created_at_ms }
    }

    fn file(name: &str) -> PathBuf {
        let name = format!("lsm-wishes-{name}-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::remove_file(&path).ok();
        path
    }

    /// Goal: the next leader knows what was asked of the last one, and a drain is for one machine: not
    /// for the one that has its slot, or its name, after it.
    #[test]
    fn the_next_leader_knows_what_was_asked_for() {
        let path = file("next");
        let (one, two) = (place(1, 7), place(2, 7));
        let mut wishes = WishList::new(path.clone());
        wishes.load().expect("nothing is no fault");
        assert!(wishes.drain(wish(&one)).0 && wishes.drain(wish(&two)).0);
        assert!(!wishes.drain(wish(&one)).0, "asked for again is no news");
        assert_eq!(wishes.weigh(InstanceId::proxy(2), 50).0, WEIGHT_NORMAL);
        assert!(wishes.keep(InstanceId::proxy(2)).0 && !wishes.keep(InstanceId::proxy(2)).0);

        let mut next = WishList::new(path.clone());
        next.load().expect("read");
        assert!(next.drained(&[]).is_empty(), "a list that misses it");
        let asked = BTreeSet::from([InstanceId::proxy(1)]);
        assert_eq!(next.drained(&[one, two.clone()]), asked);
        assert_eq!(next.weights(), BTreeMap::from([(InstanceId::proxy(2), 50)]));
        assert!(next.drained(&[place(1, 8), two]).is_empty(), "another one of the same name");
        assert_eq!(next.weigh(InstanceId::proxy(2), WEIGHT_NORMAL).0, 50);
        next.load().expect("read");
        assert_eq!(next.wishes, Wishes::default(), "the file too");
        fs::remove_file(path).expect("removed");
    }

    /// A leader that was outlived, and does not know it, takes nothing away from the next one's file.
    #[test]
    fn two_leaders_do_not_overwrite_each_other() {
        let path = file("two");
        let (mut old, mut new) = (WishList::new(path.clone()), WishList::new(path.clone()));
        new.weigh(InstanceId::proxy(1), 50).1.expect("written");
        old.weigh(InstanceId::proxy(2), 25).1.expect("written");
        new.load().expect("read");
        assert_eq!(new.weights().len(), 2);
        fs::remove_file(path).expect("removed");
    }

    /// A file that cannot be read is not replaced by an empty one; what is asked for is done.
    #[test]
    fn a_damaged_file_stays_and_is_told() {
        let path = file("damaged");
        fs::write(&path, "{").expect("written");
        let mut wishes = WishList::new(path.clone());
        wishes.load().expect_err("damaged");
        wishes.weigh(InstanceId::proxy(1), 50).1.expect_err("not written");
        assert_eq!(wishes.weights().len(), 1);
        assert_eq!(fs::read_to_string(&path).expect("there"), "{");
        fs::remove_file(path).expect("removed");
    }
}
