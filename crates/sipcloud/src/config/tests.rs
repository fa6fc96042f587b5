//! The example file, and what an operator is told about a wrong one.

use super::*;

const EXAMPLE: &str = include_str!("../../../../config/sipcloud.example.toml");

#[test]
fn the_example_holds_every_key_with_its_default() {
    let config = Config::parse(EXAMPLE).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(config, Config::default());

    let example: toml::Table = EXAMPLE.parse().expect("it is TOML");
    let defaults = toml::Value::try_from(Config::default()).expect("written");
    for (section, keys) in defaults.as_table().expect("sections") {
        for key in keys.as_table().expect("keys").keys() {
            assert!(example[section].get(key).is_some(), "the example lacks {section}.{key}");
        }
    }
}

#[test]
fn no_file_and_an_empty_file_mean_the_defaults() {
    assert_eq!(Config::parse("").expect("empty"), Config::default());
    assert_eq!(Config::read_or_default(None).expect("none"), Config::default());
}

#[test]
fn a_written_configuration_reads_back() {
    let mut config = Config::default();
    config.local.network = "127.9".to_owned();
    config.store.kind = StoreKind::Memory;
    config.manager.policy = PolicyChoice::Paper;
    let text = config.to_toml().expect("written");
    assert_eq!(Config::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}")), config);
}

#[test]
fn every_fault_names_line_key_and_remedy() {
    struct Row {
        text: &'static str,
        line: Option<usize>,
        key: &'static str,
        remedy: &'static str,
    }
    #[rustfmt::skip]
    let table = [
        Row { text: "[proxies]\ncapacity_cp = 1",            line: Some(2), key: "proxies.capacity_cp", remedy: "did you mean proxies.capacity_cps?" },
        Row { text: "\n[proxy]\nworkers = 1",                line: Some(2), key: "proxy",               remedy: "there is no such" },
        Row { text: "[manager]\nzebra = 1",                  line: Some(2), key: "manager.zebra",       remedy: "[manager] has down_percent" },
        Row { text: "[proxies]\nworkers = \"many\"",         line: Some(2), key: "proxies.workers",     remedy: "expected u16" },
        Row { text: "[manager]\npolicy = \"fast\"",          line: Some(2), key: "manager.policy",      remedy: "`adaptive`" },
        Row { text: "[proxies]\nworkers = 0",                line: Some(2), key: "proxies.workers",     remedy: "between 1 and 64" },
        Row { text: "[proxies]\n\ninstances_max = 0",        line: Some(3), key: "proxies.instances_max", remedy: "at least proxies.instances_min" },
        Row { text: "[service]\ndomains = []",               line: Some(2), key: "service.domains",     remedy: "at least one domain" },
        Row { text: "[service]\ndomains = [\"a b\"]",        line: Some(2), key: "service.domains",     remedy: "is no domain" },
        Row { text: "[service]\ntrusted_trunks = [\"1.2.3.4/33\"]", line: Some(2), key: "service.trusted_trunks", remedy: "neither" },
        Row { text: "[local]\nnetwork = \"10.0\"",           line: Some(2), key: "local.network",       remedy: "must be 127" },
        Row { text: "[local]\nlisten = \"0.0.0.0\"\n[balancers]\ninstances_max = 1", line: Some(2), key: "local.listen", remedy: "one address of this machine" },
        Row { text: "[local]\nlisten = \"192.0.2.1\"\n[balancers]\ninstances_max = 2", line: Some(4), key: "balancers.instances_max", remedy: "must be 1 together" },
        Row { text: "[log]\nfilter = \"info,=\"",            line: Some(2), key: "log.filter",          remedy: "is no filter" },
        Row { text: "[digest]\nalgorithms = [\"SHA1\"]",     line: Some(2), key: "digest.algorithms",   remedy: "is none of MD5" },
        Row { text: "[manager\n",                            line: Some(1), key: "",                    remedy: "no TOML" },
    ];
    for row in table {
        let faults = Config::parse(row.text).expect_err(row.text);
        let fault = &faults[0];
        assert_eq!(fault.line, row.line, "{:?}: {fault}", row.text);
        assert_eq!(fault.key, row.key, "{:?}: {fault}", row.text);
        assert!(fault.remedy.contains(row.remedy), "{:?}: {fault}", row.text);
    }
}

#[test]
fn an_address_alone_means_one_balancer() {
    let config = Config::parse("[local]\nlisten = \"192.0.2.1\"").expect("good");
    assert_eq!(config.balancers.instances_max, 1);
}

#[test]
fn only_what_may_change_is_reloaded() {
    let running = Config::default();
    let text = "[local]\nnetwork = \"127.9\"\n[proxies]\nworkers = 3\ninstances_min = 2\n\
                [manager]\nfreeze = true\n[log]\nfilter = \"debug\"";
    let reloaded = running.reloaded(&Config::parse(text).expect("good"));
    assert_eq!((reloaded.proxies.instances_min, reloaded.manager.freeze), (2, true));
    assert_eq!(reloaded.log.filter, "debug");
    assert_eq!((reloaded.local.network.as_str(), reloaded.proxies.workers), ("127.0", 1));
}

#[test]
fn several_faults_are_told_at_once() {
    let faults = Config::parse("[proxies]\nworkers = 0\ncapacity_cps = 0").expect_err("two");
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn the_store_lies_in_the_data_directory_or_where_it_is_told() {
    let data = Path::new("/srv/cloud");
    let mut config = Config::default();
    assert_eq!(config.store_path(data), Path::new("/srv/cloud/store.db"));
    config.store.path = "other.db".into();
    assert_eq!(config.store_path(data), Path::new("/srv/cloud/other.db"));
    config.store.path = "/var/lib/s.db".into();
    assert_eq!(config.store_path(data), Path::new("/var/lib/s.db"));
    config.store.kind = StoreKind::Memory;
    assert!(config.store_path(data).starts_with("/dev/shm"));
}
