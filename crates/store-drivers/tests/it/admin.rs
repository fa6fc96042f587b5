//! The operator's commands, on a file that proxies have open.

use std::time::Duration;

use store::{Answer, Binding, BindingId, Credential, Query, UnixMillis};
use store_drivers::StoreLocation;
use store_drivers::admin::{
    Admin, AdminError, Lifetime, NewRegistration, Which, parse_aor, parse_user,
};

use super::{NOW, binding, folder, open};

#[test]
fn users_are_added_changed_listed_and_removed() {
    let folder = folder();
    let mut proxy = open(&folder.store_path());
    let mut admin = Admin::open(&StoreLocation::sqlite(folder.store_path())).expect("opened");
    let mut found = |user: &str| {
        let key = parse_user(user).expect("a name");
        let query = Query::Credential { realm: key.realm, username: key.username };
        match proxy.ask(query) {
            Ok(Answer::Credential(credential)) => credential,
            other => panic!("a credential was asked for: {other:?}"),
        }
    };
    let alice = parse_user("alice@Example.com").expect("a name");
    let expected = |password| Some(Credential::new("alice", "example.com", password));

    admin.add_user(&alice, b"first").expect("added");
    assert_eq!(found("alice@example.com"), expected("first"));
    let again = admin.add_user(&alice, b"second");
    assert!(matches!(again, Err(AdminError::UserExists { .. })), "{again:?}");
    assert_eq!(found("alice@example.com"), expected("first"));
    admin.change_password(&alice, b"second").expect("changed");
    assert_eq!(found("alice@example.com"), expected("second"));
    assert!(matches!(admin.change_password(&alice, b""), Err(AdminError::EmptyPassword)));

    let bob = parse_user("bob@example.org").expect("a name");
    let missing = admin.change_password(&bob, b"secret");
    assert!(matches!(missing, Err(AdminError::NoSuchUser { .. })), "{missing:?}");
    admin.put_user(&bob, b"secret").expect("put");
    assert_eq!(admin.users(None).expect("listed"), [alice.clone(), bob.clone()]);
    assert_eq!(admin.users(Some("example.org")).expect("listed"), [bob]);

    admin.remove_user(&alice).expect("removed");
    assert_eq!(found("alice@example.com"), None);
    assert!(matches!(admin.remove_user(&alice), Err(AdminError::NoSuchUser { .. })));
}

#[test]
fn registrations_are_added_listed_and_removed() {
    let folder = folder();
    let mut admin = Admin::open(&StoreLocation::sqlite(folder.store_path())).expect("opened");
    let aor = parse_aor("sip:trunk@example.com").expect("an address");
    let new = |id, lifetime| NewRegistration {
        aor: aor.clone(),
        id: BindingId([id; 16]),
        contact: format!("sip:trunk@192.0.2.{id}").into_bytes(),
        q: 1000,
        direct: true,
        lifetime,
    };
    admin.add_registration(&new(1, Lifetime::Permanent), NOW).expect("added");
    let minute = Lifetime::For(Duration::from_secs(60));
    admin.add_registration(&new(2, minute), NOW).expect("added");
    let far = UnixMillis(NOW.0 * 10);
    let mut live = |aor, now| -> Vec<u8> {
        let registrations = admin.registrations(aor, now).expect("listed");
        assert!(registrations.iter().all(|registration| registration.binding.direct));
        let mut ids: Vec<_> = registrations.iter().map(|row| row.binding.id.0[0]).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(live(None, NOW), [1, 2]);
    assert_eq!(live(Some(&aor), NOW), [1, 2]);
    assert_eq!(live(None, far), [1], "the permanent one");

    let which = Which::Contact(b"sip:trunk@192.0.2.1".to_vec());
    assert_eq!(admin.remove_registrations(&aor, &which, NOW).expect("removed"), 1);
    let again = admin.remove_registrations(&aor, &which, NOW);
    assert!(matches!(again, Err(AdminError::NoSuchRegistration { .. })), "{again:?}");
    assert_eq!(admin.registrations(None, NOW).expect("listed").len(), 1);
    admin.add_registration(&new(1, minute), NOW).expect("added again, though just removed");
    assert_eq!(admin.registrations(None, NOW).expect("listed").len(), 2);
    assert_eq!(admin.remove_registrations(&aor, &Which::All, NOW).expect("removed"), 2);
}

#[test]
fn what_an_operator_removed_a_delayed_refresh_does_not_bring_back() {
    let folder = folder();
    let mut proxy = open(&folder.store_path());
    let mut admin = Admin::open(&StoreLocation::sqlite(folder.store_path())).expect("opened");
    let aor = parse_aor("alice@example.com").expect("an address");
    let write = |row: Binding| Query::Write { aor: aor.clone(), upserts: vec![row], now: NOW };
    assert_eq!(proxy.ask(write(Binding { cseq: 7, ..binding(1) })), Ok(Answer::Done));
    let which = Which::Id(BindingId([1; 16]));
    admin.remove_registrations(&aor, &which, NOW).expect("removed");
    assert_eq!(proxy.ask(write(Binding { cseq: 8, ..binding(1) })), Ok(Answer::Done));
    assert_eq!(admin.registrations(None, NOW).expect("listed"), []);
    let Ok(Answer::Bindings(rows)) = proxy.ask(Query::Bindings { aor: aor.clone() }) else {
        panic!("bindings were asked for");
    };
    assert_eq!((rows[0].cseq, rows[0].is_live(NOW)), (7, false), "its CSeq is still known");
}
