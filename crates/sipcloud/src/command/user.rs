//! `sipcloud user …`: credentials, straight in the store; only hashes are kept.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use store::CredentialKey;
use store_drivers::admin::parse_user;

use crate::cli;
use crate::command::{explain, import, open_existing_store, open_store};
use crate::config::Config;
use crate::exit::Exit;
use crate::show;

pub(crate) fn run(command: &cli::User) -> Result<Option<Exit>> {
    match command {
        cli::User::Add(name) => {
            let (mut store, config) = open_store(&name.data.data)?;
            let user = in_served_realm(&config, &name.user);
            store.add_user(&user, read_password(&user)?.as_bytes()).map_err(explain)?;
            println!("added {user}");
            warn_if_not_served(&config, &user.realm);
        }
        cli::User::Passwd(name) => {
            let (mut store, config) = open_existing_store(&name.data.data)?;
            let user = in_served_realm(&config, &name.user);
            store.change_password(&user, read_password(&user)?.as_bytes()).map_err(explain)?;
            println!("changed the password of {user}");
        }
        cli::User::Remove(name) => {
            let (mut store, config) = open_existing_store(&name.data.data)?;
            let user = in_served_realm(&config, &name.user);
            store.remove_user(&user).map_err(explain)?;
            println!("removed {user}");
        }
        cli::User::Import { file, data } => import_users(file, &data.data)?,
        cli::User::List { data, realm, json } => {
            let (mut store, _) = open_existing_store(&data.data)?;
            for user in store.users(realm.as_deref()).map_err(explain)? {
                if *json {
                    let CredentialKey { realm, username } = user;
                    println!("{}", serde_json::json!({ "user": username, "realm": realm }));
                } else {
                    println!("{user}");
                }
            }
        }
    }
    Ok(None)
}

fn import_users(file: &Path, data: &Path) -> Result<()> {
    let (mut store, config) = open_store(data)?;
    let users = import::records(file, |name, password| {
        Ok((in_served_realm(&config, &parse_user(name)?), password.to_owned()))
    })?;
    let users: Vec<(CredentialKey, String)> = users.into_iter().collect();
    let total = users.len();
    store.put_users(&users, &mut |done| show::progress("users", done, total)).map_err(explain)?;
    println!("{total} users are in the store");
    let realms: BTreeSet<&str> = users.iter().map(|(user, _)| user.realm.as_str()).collect();
    realms.into_iter().for_each(|realm| warn_if_not_served(&config, realm));
    Ok(())
}

/// From a prompt without echo, asked twice; or the first line of standard input.
fn read_password(user: &CredentialKey) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).context("cannot read the password")?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let ask =
        |prompt: String| rpassword::prompt_password(prompt).context("cannot read the password");
    let password = ask(format!("Password for {user}: "))?;
    if ask("Once more: ".to_owned())? != password {
        return Err(Exit::Usage.because("the two passwords differ"));
    }
    Ok(password)
}

/// A user of an address is a user of the first domain: a phone that knows only an address of the
/// service means that domain, and is challenged in its realm.
fn in_served_realm(config: &Config, user: &CredentialKey) -> CredentialKey {
    let realm = served_domain(config, &user.realm).to_owned();
    CredentialKey { realm, username: user.username.clone() }
}

/// The domain that a host names.
pub(crate) fn served_domain<'a>(config: &'a Config, host: &'a str) -> &'a str {
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_domain = config.service.domains.iter().any(|domain| domain == host);
    if is_address && !is_domain { config.service_name() } else { host }
}

fn warn_if_not_served(config: &Config, realm: &str) {
    let domains = &config.service.domains;
    let is_served = domains.iter().any(|domain| domain.eq_ignore_ascii_case(realm));
    if !is_served {
        eprintln!(
            "note: a cloud that runs now does not serve {realm} (it serves {}); it will when it \
             starts again",
            domains.join(", "),
        );
    }
}
