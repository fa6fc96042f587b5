//! Every scenario tells the story that is written down beside it.

use std::path::{Path, PathBuf};

use simulation::{Outcome, Scenario, built_in, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn play(name: &str) -> Outcome {
    let (_, text) = built_in().iter().find(|(known, _)| *known == name).expect("built in");
    let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    run(&scenario, &scenario.settings())
}

/// `UPDATE_EXPECT=1` writes the stories anew; they are read in review like code.
#[test]
fn every_scenario_tells_its_story() {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    let is_update = std::env::var("UPDATE_EXPECT").is_ok();
    let in_folder = std::fs::read_dir(folder()).expect("the scenarios").flatten();
    let is_scenario = |path: &PathBuf| path.extension().is_some_and(|it| it == "toml");
    let in_folder = in_folder.map(|file| file.path()).filter(is_scenario).count();
    assert_eq!(built_in().len(), in_folder, "every file of the folder is built in");
    let mut differing = Vec::new();
    for (name, _) in built_in() {
        let outcome = play(name);
        assert!(outcome.violations.is_empty(), "{name}:\n{}", outcome.story);
        let path = folder().join(format!("{name}.expected"));
        if is_update {
            std::fs::write(&path, &outcome.story).expect("written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != outcome.story {
            differing.push(format!("{name} tells now:\n{}", outcome.story));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// The experiment of the paper's §4.1: up at 170, 340 and 510 calls per second after five polls of
/// three seconds, and down the same way; a proxy's 200 are never passed, though machines boot in 150 s.
#[test]
fn the_papers_load_needs_four_proxies_and_gives_them_back() {
    let outcome = play("paper-figure-5");
    let decisions: Vec<(u64, &str)> = outcome
        .story
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once("decide    proxy ")?;
            Some((before.split_whitespace().next()?.parse().ok()?, after))
        })
        .collect();
    let expected = [
        (372, "1 → 2: above 170 cps for 5 polls"),
        (1902, "2 → 3: above 340 cps for 5 polls"),
        (3432, "3 → 4: above 510 cps for 5 polls"),
        (6042, "4 → 3: below 510 cps for 5 polls"),
        (6312, "3 → 2: below 340 cps for 5 polls"),
        (6492, "2 → 1: below 170 cps for 5 polls"),
    ];
    assert_eq!(decisions, expected, "{}", outcome.story);
    assert_eq!((outcome.overloaded_s, outcome.calls_unserved), (0, 0));
    assert_eq!(outcome.proxies, (1, 4));
}

/// What the dangerous scenarios must not tell, whatever else their stories say.
#[test]
fn missing_data_takes_nothing_away() {
    for name in ["blind", "blind-new-manager", "partial-list", "list-fails", "dry-run"] {
        let story = play(name).story;
        let told = |from: u64, to: u64| -> Vec<&str> {
            let at = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
            story
                .lines()
                .filter(|line| at(line).is_some_and(|at| (from..to).contains(&at)))
                .collect()
        };
        let window = match name {
            "blind" => told(126, 720),
            "blind-new-manager" => told(61, 1_500),
            "partial-list" => told(61, 1_800),
            "list-fails" => told(51, 170),
            _ => told(1, 600),
        };
        let acts = ["create ", "remove ", "publish ", "drain ", "names "];
        let acted = window.iter().find(|line| acts.iter().any(|act| line.contains(act)));
        assert_eq!(acted, None, "{name}:\n{story}");
    }
}

#[test]
fn the_same_scenario_tells_the_same_story() {
    assert_eq!(play("night").story, play("night").story);
}
