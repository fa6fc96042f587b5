//! Users: put, get, replace, delete, list.

use super::{Check, Client, Fixture, client};
use crate::credential::{Credential, CredentialKey};
use crate::query::{Answer, Query};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_credential_is_found_as_it_was_put", a_credential_is_found_as_it_was_put),
    ("a_user_is_created_once", a_user_is_created_once),
    ("a_credential_is_replaced_and_deleted", a_credential_is_replaced_and_deleted),
    ("users_of_two_realms_are_two_users", users_of_two_realms_are_two_users),
    ("a_listing_holds_every_user_once", a_listing_holds_every_user_once),
];

fn key(username: &str, realm: &str) -> CredentialKey {
    CredentialKey { realm: realm.to_owned(), username: username.to_owned() }
}

fn of(key: &CredentialKey, password: &str) -> Credential {
    Credential::new(&key.username, &key.realm, password)
}

fn put(client: &mut Client, key: &CredentialKey, password: &str) {
    let CredentialKey { realm, username } = key.clone();
    let credential = of(key, password);
    let query = Query::PutCredential { realm, username, credential };
    assert_eq!(client.ask(query), Ok(Answer::Done));
}

fn get(client: &mut Client, key: &CredentialKey) -> Option<Credential> {
    let CredentialKey { realm, username } = key.clone();
    match client.ask(Query::Credential { realm, username }) {
        Ok(Answer::Credential(credential)) => credential,
        other => panic!("a credential was asked for: {other:?}"),
    }
}

fn a_credential_is_found_as_it_was_put(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let users = [
        key("alice", "example.com"),
        key("Alice", "example.com"),
        key("Jäsøn Doe", "api@example.org"),
        key("nul\0nul", "example.com"),
        key("nul", "example.com"),
        key("", ""),
        key("' OR 1=1 --", "example.com"),
    ];
    for (place, user) in users.iter().enumerate() {
        assert_eq!(get(&mut client, user), None, "{user} is not there yet");
        put(&mut client, user, &format!("secret {place}"));
    }
    for (place, user) in users.iter().enumerate() {
        let expected = of(user, &format!("secret {place}"));
        assert_eq!(get(&mut client, user), Some(expected), "{user}");
    }
}

fn a_user_is_created_once(fixture: &dyn Fixture) {
    let (mut one, mut two) = (client(fixture), client(fixture));
    let alice = key("alice", "example.com");
    let create = |password| Query::CreateCredential {
        realm: alice.realm.clone(),
        username: alice.username.clone(),
        credential: of(&alice, password),
    };
    assert_eq!(one.ask(create("first")), Ok(Answer::Created(true)));
    assert_eq!(two.ask(create("second")), Ok(Answer::Created(false)));
    assert_eq!(get(&mut one, &alice), Some(of(&alice, "first")), "the first one stands");
}

fn a_credential_is_replaced_and_deleted(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let alice = key("alice", "example.com");
    put(&mut client, &alice, "old");
    put(&mut client, &alice, "new");
    assert_eq!(get(&mut client, &alice), Some(of(&alice, "new")));
    let CredentialKey { realm, username } = alice.clone();
    let delete = Query::DeleteCredential { realm, username };
    for time in ["first", "second"] {
        assert_eq!(client.ask(delete.clone()), Ok(Answer::Done), "the {time} time");
        assert_eq!(get(&mut client, &alice), None);
    }
}

fn users_of_two_realms_are_two_users(fixture: &dyn Fixture) {
    let mut client = client(fixture);
    let (here, there) = (key("alice", "example.com"), key("alice", "example.org"));
    put(&mut client, &here, "here");
    assert_eq!(get(&mut client, &there), None);
    put(&mut client, &there, "there");
    assert_eq!(get(&mut client, &here), Some(of(&here, "here")));
    assert_eq!(get(&mut client, &there), Some(of(&there, "there")));
}

fn a_listing_holds_every_user_once(fixture: &dyn Fixture) {
    // Method: pages of 4 over 25 users of two realms, whatever the driver's order.
    let mut client = client(fixture);
    let mut expected: Vec<_> = (0..25)
        .map(|user| key(&format!("user-{user}"), ["a.example", "b.example"][user % 2]))
        .collect();
    for user in &expected {
        put(&mut client, user, "secret");
    }
    expected.sort();
    for realm in [None, Some("a.example"), Some("c.example")] {
        let mut listed = pages(&mut client, realm);
        listed.sort();
        let expected = expected.iter().filter(|key| realm.is_none_or(|realm| key.realm == realm));
        assert!(listed.iter().eq(expected), "{realm:?}: {listed:?}");
    }
}

fn pages(client: &mut Client, realm: Option<&str>) -> Vec<CredentialKey> {
    let mut listed: Vec<CredentialKey> = Vec::new();
    loop {
        let realm = realm.map(str::to_owned);
        let after = listed.last().cloned();
        match client.ask(Query::ListCredentials { realm, after, limit: 4 }) {
            Ok(Answer::Credentials(page)) => {
                let is_last = page.len() < 4;
                assert!(page.len() <= 4, "a page keeps its limit");
                listed.extend(page);
                if is_last {
                    return listed;
                }
            }
            other => panic!("credentials were asked for: {other:?}"),
        }
    }
}
