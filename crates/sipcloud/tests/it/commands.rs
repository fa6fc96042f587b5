//! Commands that need no running cloud.

use super::{Data, output, sipcloud, write};

#[test]
fn users_are_added_changed_listed_and_removed() {
    let data = Data::new("users");
    data.good("user add alice@sipcloud.test", "secret\n");
    data.good("user add bob@127.0.10.1", "secret\n");
    let users = data.good("user list", "");
    assert_eq!(users, "alice@sipcloud.test\nbob@sipcloud.test\n", "an address is the service");

    assert_eq!(data.run("user add alice@sipcloud.test", "x\n").status.code(), Some(1));
    assert_eq!(data.run("user add carol@sipcloud.test", "\n").status.code(), Some(2), "empty");
    assert_eq!(data.run("user passwd dave@sipcloud.test", "x\n").status.code(), Some(1));
    data.good("user passwd alice@sipcloud.test", "other\n");
    data.good("user remove alice@sipcloud.test", "");
    let left = data.good("user list --json", "");
    assert_eq!(left, "{\"realm\":\"sipcloud.test\",\"user\":\"bob\"}\n");
}

#[test]
fn no_password_is_kept() {
    let data = Data::new("password");
    data.good("user add alice@sipcloud.test", "open-sesame\n");
    for entry in std::fs::read_dir(&data.path).expect("listed").flatten() {
        let content = std::fs::read(entry.path()).expect("read");
        let is_inside = content.windows(11).any(|window| window == b"open-sesame");
        assert!(!is_inside, "{}", entry.path().display());
    }
}

#[test]
fn registrations_are_added_listed_and_removed() {
    let data = Data::new("registrations");
    data.good("registration add bob@sipcloud.test sip:bob@192.0.2.7:5060 --direct", "");
    data.good("registration add bob@sipcloud.test sip:b@192.0.2.8 --direct --expires 1h", "");
    let all = data.good("registration list", "");
    assert_eq!(all.lines().count(), 2, "{all}");
    assert!(all.contains("for ever") && all.contains("direct"), "{all}");
    data.good("registration remove bob@sipcloud.test sip:b@192.0.2.8", "");
    let left = data.good("registration list bob@sipcloud.test --json", "");
    assert_eq!(left.lines().count(), 1, "{left}");
    assert!(left.contains("\"contact\":\"sip:bob@192.0.2.7:5060\""), "{left}");

    let wrong = "registration add bob@sipcloud.test tel:+15551234 --direct";
    assert_eq!(data.run(wrong, "").status.code(), Some(2));
    let indirect = "registration add bob@sipcloud.test sip:bob@192.0.2.7";
    assert_eq!(data.run(indirect, "").status.code(), Some(2), "says that --direct is needed");
}

#[test]
fn users_and_registrations_are_imported_or_the_wrong_line_is_named() {
    let data = Data::new("import");
    let users: String = (0..600).map(|id| format!("u{id}@sipcloud.test,se,cret\n")).collect();
    let told = data.good("user import -", &format!("# all of them\n\n{users}"));
    assert_eq!(told, "600 users are in the store\n");
    data.good("user import -", "u7@127.0.10.1,other\nv@sipcloud.test,x\n");
    assert_eq!(data.good("user list", "").lines().count(), 601, "u7 is not a new one");

    let contacts: String =
        (0..600).map(|id| format!("u{id}@sipcloud.test,sip:u{id}@192.0.2.7:5060\n")).collect();
    for time in ["first", "second"] {
        let told = data.good("registration import - --direct", &contacts);
        assert_eq!(told, "600 registrations are in the store\n", "the {time} time");
    }
    assert_eq!(data.good("registration list", "").lines().count(), 600);

    for (command, wrong) in [
        ("user import -", "w@sipcloud.test,ok\nalice,secret-of-hers\n"),
        ("user import -", "w@sipcloud.test,ok\nalice@sipcloud.test,\n"),
        ("registration import - --direct", "w@sipcloud.test,sip:w@192.0.2.1\na@b,tel:+15551234\n"),
    ] {
        let output = data.run(command, wrong);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("-:2: ") && !told.contains("secret-of-hers"), "{told}");
    }
    assert_eq!(data.good("user list", "").lines().count(), 601, "nothing of a wrong file");
}

#[test]
fn a_wrong_configuration_is_told_by_line_and_exit_code() {
    let data = Data::new("config");
    std::fs::create_dir_all(&data.path).expect("made");
    let file = data.path.join("wrong.toml");
    write(&file, "[proxies]\ninstances_mx = 3\n");
    let checked = output(sipcloud("check-config").arg(&file), "");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{told}");
    assert!(told.contains("wrong.toml:2: proxies.instances_mx"), "{told}");
    assert!(told.contains("did you mean proxies.instances_max?"), "{told}");

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/sipcloud.example.toml");
    assert!(output(sipcloud("check-config").arg(example), "").status.success());
}

#[test]
fn commands_without_a_cloud_say_so() {
    let data = Data::new("absent");
    for command in ["status", "events", "drain proxy-1"] {
        let output = data.run(command, "");
        assert_eq!(output.status.code(), Some(69), "{command}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("sipcloud up"), "{command}: {told}");
    }
}

#[test]
fn a_mistyped_directory_is_refused_and_not_made() {
    let data = Data::new("mistyped");
    let commands = [
        "user list",
        "user remove alice@sipcloud.test",
        "user passwd alice@sipcloud.test",
        "registration list",
        "registration remove alice@sipcloud.test",
    ];
    for command in commands {
        let output = data.run(command, "x\n");
        assert_eq!(output.status.code(), Some(69), "{command}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("there is no store in"), "{command}: {told}");
        assert!(!data.path.exists(), "{command}");
    }
}

#[test]
fn a_scenario_is_played_by_name_by_file_and_with_another_policy() {
    let data = Data::new("simulate");
    std::fs::create_dir_all(&data.path).expect("made");
    let good = |command: &mut std::process::Command| {
        let output = output(command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = good(&mut sipcloud("simulate --list"));
    assert!(listed.lines().count() >= 20 && listed.contains("flash-crowd"), "{listed}");
    let story = good(&mut sipcloud("simulate proxy-dies"));
    assert!(story.contains("create    proxy-2: makes up the number"), "{story}");

    let (file, policy) = (data.path.join("mine.toml"), data.path.join("policy.toml"));
    write(
        &file,
        "about = 'mine'\nduration_s = 300\nload = [{ at_s = 0, cps = 400 }]\n\
         proxies = { instances_min = 1, instances_max = 2, capacity_cps = 200 }\n",
    );
    write(&policy, "[proxies]\ninstances_max = 5\ncapacity_cps = 100\n");
    let own = good(sipcloud("simulate").arg(&file));
    assert!(own.contains("2 proxies at the end, 2 at most"), "{own}");
    let other = good(sipcloud("simulate").arg(&file).arg("--config").arg(&policy));
    assert!(other.contains("5 proxies at the end, 5 at most"), "{other}");

    write(&file, "about = 'mine'\nduration_s = 0\nload = [{ at_s = 0, cps = 400 }]\n");
    assert_eq!(output(sipcloud("simulate").arg(&file), "").status.code(), Some(78));
    assert_eq!(output(&mut sipcloud("simulate nowhere"), "").status.code(), Some(2));
    assert_eq!(output(&mut sipcloud("simulate"), "").status.code(), Some(2));
    let random = good(&mut sipcloud("simulate --random --hours 20 --seed 3"));
    assert!(random.contains("no promise was broken"), "{random}");
}
