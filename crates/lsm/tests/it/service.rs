//! The manager as a service: its loop, its interface, its end.

use std::sync::Arc;
use std::time::Duration;

use node_api::ManagerClient;
use node_api::wire::Secret;
use provider::in_process::{InProcessCompute, InProcessDns};

use crate::world::configuration;

/// A fleet of nothing, so that nobody is called.
#[tokio::test]
async fn the_service_answers_while_it_runs_and_stops_when_told() {
    let folder = std::env::temp_dir().join(format!("lsm-it-service-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut config = configuration(folder.join("journal.jsonl"));
    config.settings.balancers.instances_min = 0;
    config.settings.proxies.instances_min = 0;
    let compute = Arc::new(InProcessCompute::new(0, Duration::ZERO));
    let lsm = lsm::start(config, compute, Arc::new(InProcessDns::default())).await;
    let lsm = lsm.expect("starts");
    let client =
        ManagerClient::new(lsm.address(), &Secret::new("manager"), Duration::from_secs(10));
    let client = client.expect("a client");
    let fleet = client.fleet().await.expect("answers");
    assert_eq!(fleet.manager.pid, std::process::id());
    let page = client.events(0).await.expect("answers");
    assert!(page.events.iter().any(|event| event.text.starts_with("manager starts")));
    lsm.stop().await;
    assert!(client.fleet().await.is_err(), "stopped");
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).expect("a journal");
    assert!(journal.trim_end().ends_with("nodes go on\"}"), "{journal}");
    std::fs::remove_dir_all(folder).ok();
}
