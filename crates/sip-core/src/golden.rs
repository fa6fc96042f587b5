//! Golden files for the tests of this crate: compare, or rewrite with `UPDATE_EXPECT=1`.

use std::path::PathBuf;

use fleet::{FleetKey, FleetKeys};

use crate::mac::KeyRing;

/// The ring that every golden file of this crate was made with: key 2 signs, key 1 is accepted.
pub(crate) fn ring() -> KeyRing {
    let key = |id: u8| FleetKey { id, secret: std::array::from_fn(|at| id ^ at as u8) };
    KeyRing::new(&FleetKeys { keys: vec![key(1), key(2)], signing: 2 }).expect("two good keys")
}

/// The same fleet before it began to sign with key 2.
pub(crate) fn earlier_ring() -> KeyRing {
    let key = |id: u8| FleetKey { id, secret: std::array::from_fn(|at| id ^ at as u8) };
    KeyRing::new(&FleetKeys { keys: vec![key(1), key(2)], signing: 1 }).expect("two good keys")
}

/// Fails unless `testdata/NAME` holds `actual`.
pub(crate) fn check(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("testdata/ can be made");
        std::fs::write(&path, actual).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{} differs: if the format is meant to change, this is a migration; then UPDATE_EXPECT=1",
        path.display()
    );
}
