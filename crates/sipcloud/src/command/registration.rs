//! `sipcloud registration …`: bindings, straight in the store.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sip_core::registrar::binding_id_of_contact;
use sip_message::{Scheme, Uri};
use store::{Aor, Registration, UnixMillis};
use store_drivers::admin::{Lifetime, NewRegistration, Which, parse_aor};

use crate::cli;
use crate::command::user::served_domain;
use crate::command::{explain, import, open_existing_store, open_store};
use crate::config::Config;
use crate::exit::Exit;
use crate::show;

pub(crate) fn run(command: &cli::Registration) -> Result<Option<Exit>> {
    match command {
        cli::Registration::List { aor, data, json } => {
            let (mut store, config) = open_existing_store(&data.data)?;
            let aor = aor.as_ref().map(|aor| in_served_domain(&config, aor));
            let now = now();
            let listed = store.registrations(aor.as_ref(), now).map_err(explain)?;
            for registration in listed.into_iter().filter(|it| !it.aor.is_of_balancer()) {
                print(&registration, now, *json);
            }
        }
        cli::Registration::Add(arguments) => add(arguments)?,
        cli::Registration::Import { file, direct, expires, data } => {
            let (mut store, config) = open_store(&data.data)?;
            let new = import::records(file, |name, contact| {
                let aor = in_served_domain(&config, &parse_aor(name)?);
                let new = registration(aor, contact.trim(), *direct, *expires)?;
                Ok(((new.aor.clone(), new.id), new))
            })?;
            let new: Vec<NewRegistration> = new.into_values().collect();
            let mut bar = |done| show::progress("registrations", done, new.len());
            store.put_registrations(&new, now(), &mut bar).map_err(explain)?;
            println!("{} registrations are in the store", new.len());
        }
        cli::Registration::Remove { aor, contact, data } => {
            remove(&data.data, aor, contact.as_deref())?;
        }
    }
    Ok(None)
}

fn add(arguments: &cli::RegistrationAdd) -> Result<()> {
    let cli::RegistrationAdd { aor, contact, direct, expires, data } = arguments;
    let mut new = registration(aor.clone(), contact, *direct, *expires)?;
    let (mut store, config) = open_store(&data.data)?;
    new.aor = in_served_domain(&config, aor);
    store.add_registration(&new, now()).map_err(explain)?;
    println!("{} is reached at {contact} from the proxies", new.aor);
    Ok(())
}

fn registration(
    aor: Aor,
    contact: &str,
    direct: bool,
    expires: Option<Duration>,
) -> Result<NewRegistration> {
    check_contact(contact)?;
    let id = binding_id_of_contact(contact.as_bytes())
        .map_err(|error| Exit::Usage.because(format!("{contact}: {error}")))?;
    let lifetime = expires.map_or(Lifetime::Permanent, Lifetime::For);
    Ok(NewRegistration {
        aor,
        id,
        contact: contact.as_bytes().to_vec(),
        q: 1_000,
        direct,
        lifetime,
    })
}

fn remove(data: &Path, aor: &Aor, contact: Option<&str>) -> Result<()> {
    let (mut store, config) = open_existing_store(data)?;
    let aor = in_served_domain(&config, aor);
    let which = contact.map_or(Which::All, |contact| Which::Contact(contact.as_bytes().to_vec()));
    let removed = store.remove_registrations(&aor, &which, now()).map_err(explain)?;
    println!("removed {removed} of {aor}");
    Ok(())
}

/// The address-of-record as the proxies look it up.
fn in_served_domain(config: &Config, aor: &Aor) -> Aor {
    match std::str::from_utf8(aor.domain()) {
        Ok(domain) => Aor::new(aor.user(), served_domain(config, domain).as_bytes()),
        Err(_) => aor.clone(),
    }
}

fn check_contact(contact: &str) -> Result<()> {
    let wrong = |why: &str| Exit::Usage.because(format!("contact {contact:?}: {why}"));
    let uri = Uri::parse(contact.as_bytes())
        .map_err(|_| wrong("write a SIP URI, as in sip:bob@192.0.2.7:5060"))?;
    if !matches!(uri.scheme(), Scheme::Sip) {
        return Err(wrong("only sip: URIs can be reached"));
    }
    let transport = uri.param(b"transport").flatten().map(<[u8]>::to_ascii_lowercase);
    match transport.as_deref() {
        None | Some(b"udp" | b"tcp") => Ok(()),
        Some(_) => Err(wrong("its transport must be udp or tcp")),
    }
}

fn print(registration: &Registration, now: UnixMillis, json: bool) {
    let binding = &registration.binding;
    let contact = String::from_utf8_lossy(&binding.contact);
    let agent = String::from_utf8_lossy(&binding.user_agent);
    let expires_s = (binding.expires_at != UnixMillis::NEVER).then(|| binding.seconds_left(now));
    if json {
        let path: Vec<_> =
            binding.path.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let line = json!({
            "aor": registration.aor.to_string(),
            "contact": contact,
            "expires_s": expires_s,
            "direct": binding.direct,
            "q": f64::from(binding.q) / 1_000.0,
            "received": binding.received,
            "path": path,
            "updated_at_ms": binding.updated_at.0,
            "user_agent": agent,
            "binding": binding.id.to_string(),
        });
        println!("{line}");
        return;
    }
    let left = expires_s.map_or_else(|| "for ever".to_owned(), |seconds| format!("{seconds} s"));
    let way = if binding.direct { "direct" } else { "through a balancer" };
    let updated = show::time(binding.updated_at.0);
    println!("{}  {contact}  {left}  {way}  since {updated}  {agent}", registration.aor);
}

fn now() -> UnixMillis {
    UnixMillis(sip_net::clock::unix_millis())
}
