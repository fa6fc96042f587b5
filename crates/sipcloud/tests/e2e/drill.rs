//! The drill command, as an operator and a script use it.

use serde_json::Value;

use crate::cloud::Data;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Goal: a drill plays with a running fleet, says as JSON what became of the calls, and takes its
/// users with it. One that the fleet is too small for is skipped, and that is no success.
#[test]
fn a_drill_adds_a_proxy_under_calls_and_leaves_no_user() {
    let data = Data::claim(159).with_users(&["anna"]);
    let _cloud = data.up("--proxies 1..2 --capacity 10", "");
    let said = lines(&data.good("drill scale-out --rate 20 --seconds 2 --ring 1s --json", ""));
    let of_type = |kind: &str| said.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    let drill = of_type("drill")[0];
    assert_eq!((&drill["name"], &drill["verdict"]), (&"scale-out".into(), &"passed".into()));
    assert!(drill["calls"].as_u64() > Some(40), "{drill}");
    assert_eq!((&drill["failed"], &drill["unfinished"]), (&0.into(), &0.into()), "{drill}");
    assert_eq!(drill["proxies_max"], 2, "{drill}");
    assert_eq!(drill["kinds"].as_object().map(|it| it.len()), Some(4), "{drill}");
    assert!(of_type("progress").len() > 5, "nothing was said while it ran");
    assert_eq!(of_type("drills")[0]["passed"], 1);
    assert_eq!(data.good("user list", "").trim(), "anna@sipcloud.test", "users are left");

    let (is_success, said, _) =
        data.run("drill kill-balancer --rate 5 --seconds 1 --ring 1s --json", "");
    let skipped = lines(&said).into_iter().find(|line| line["type"] == "drill").expect("told");
    assert!(!is_success && skipped["verdict"] == "skipped", "{skipped}");
    assert!(skipped["reason"].as_str().is_some_and(|it| it.contains("the only one")), "{skipped}");
}
