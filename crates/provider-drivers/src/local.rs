//! The local provider: a machine is a process of this computer on a loopback address of its own.
//!
//! Everything it knows lies in `DATA/instances/NAME`, so that the next manager adopts what the
//! last one made. Machines outlive the manager.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use fleet::{InstanceId, Tier};
use parking_lot::Mutex;
use provider::{
    Addresses, ComputeProvider, Machine, MachineId, MachineRequest, MachineState, ProviderError,
};

use crate::local_machine::{MachineFolder, MachineRecord};
use crate::process::{ProcessIdentity, Signal, in_own_session, try_lock};

/// The request's file that the role starts from.
const NODE_FILE: &str = "node.json";
/// How often a stopping process, or a lock, is looked at.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How long another manager's change is waited for; then the act is tried again later.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// A killed process that is still there after this long hangs in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How the local provider works; all of it comes from the configuration.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Machines live in `DATA/instances`, logs of removed ones in `DATA/logs`.
    pub data: PathBuf,
    /// What a machine runs; it is called as `PROGRAM balancer --node node.json` in its folder,
    /// and the request's arguments follow.
    pub program: PathBuf,
    pub addresses: AddressPlan,
    /// A log longer than this is set aside when its machine starts.
    pub log_bytes_max: u64,
    /// Between SIGTERM and SIGKILL.
    pub terminate_grace: Duration,
    /// How long a machine waits before it works, as those of a cloud do. Told to the program as
    /// `--boot-time`, unless it is zero.
    pub boot_time: Duration,
}

/// Which loopback address belongs to which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// The first two octets: `[127, 0]` gives 127.0.10.n to balancers and 127.0.20.n to proxies.
    pub network: [u8; 2],
    pub sip_port: u16,
    pub control_port: u16,
    /// Slots of balancers. One, if clients know one address: a balancer elsewhere would serve nobody.
    pub balancers_max: u16,
}

impl AddressPlan {
    /// Slots of one tier; an address octet holds no more.
    pub const SLOT_MAX: u16 = 249;

    /// Where a slot is reached; `None` beyond [`Self::SLOT_MAX`] and for tiers without addresses.
    pub fn of(&self, instance: InstanceId) -> Option<Addresses> {
        let ip = self.ip(instance)?;
        Some(Addresses {
            sip: SocketAddr::new(ip, self.sip_port),
            control: SocketAddr::new(ip, self.control_port),
        })
    }

    fn ip(&self, instance: InstanceId) -> Option<IpAddr> {
        let (tier, slots) = match instance.tier {
            Tier::LoadBalancer => (10, self.balancers_max.min(Self::SLOT_MAX)),
            Tier::Proxy => (20, Self::SLOT_MAX),
            Tier::Store => return None,
        };
        let slot = u8::try_from(instance.slot).ok()?;
        let is_slot = (1..=slots).contains(&instance.slot);
        is_slot.then(|| self.octets(tier, slot))
    }

    /// Managers that one network has addresses for.
    pub const MANAGERS_MAX: u8 = 5;

    /// Where the interface of a manager listens, counted from 1; of the first also the DNS server
    /// of the one that leads.
    pub fn manager_ip(&self, number: u8) -> IpAddr {
        self.octets(10, 249_u8.saturating_add(number.clamp(1, Self::MANAGERS_MAX)))
    }

    fn octets(&self, tier: u8, slot: u8) -> IpAddr {
        let [first, second] = self.network;
        IpAddr::V4(Ipv4Addr::new(first, second, tier, slot))
    }
}

/// Machines of this computer.
pub struct LocalCompute {
    options: LocalOptions,
    instances: PathBuf,
    logs: PathBuf,
    /// Processes that this manager started, so that their exit codes are taken.
    children: Mutex<HashMap<u32, Child>>,
    /// One change at a time: creating and removing the same folder must not interleave.
    changing: tokio::sync::Mutex<()>,
    /// The same among the managers of this data directory.
    lock: PathBuf,
}

impl LocalCompute {
    /// # Errors
    ///
    /// The data directory cannot be made or read.
    pub fn new(options: LocalOptions) -> io::Result<Self> {
        fs::create_dir_all(&options.data)?;
        // Children are started in their own folders: relative paths would lead astray.
        let data = options.data.canonicalize()?;
        Ok(Self {
            instances: data.join("instances"),
            logs: data.join("logs"),
            lock: data.join("machines.lock"),
            options: LocalOptions { data, ..options },
            children: Mutex::new(HashMap::new()),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// Keeps other managers from changing machines, until it is dropped or this process ends.
    async fn lock(&self) -> Result<File, ProviderError> {
        let file = File::options().create(true).append(true).mode(0o600).open(&self.lock);
        let file = file.map_err(unavailable)?;
        let mut waited = Duration::ZERO;
        while waited < LOCK_WAIT {
            if try_lock(&file).map_err(unavailable)? {
                return Ok(file);
            }
            tokio::time::sleep(STOP_POLL).await;
            waited += STOP_POLL;
        }
        let why = "another manager is about to make or remove a machine".to_owned();
        Err(ProviderError::Unavailable { why })
    }

    /// Returns when it was made.
    fn start(&self, request: &MachineRequest, folder: &MachineFolder) -> io::Result<u64> {
        let created_at_ms = folder.fill(&request.files)?;
        let mut record = MachineRecord {
            instance: request.instance.to_string(),
            token: request.token.clone(),
            created_at_ms,
            process: None,
            is_ending: false,
        };
        folder.write_record(&record)?;
        let log = folder.open_log(self.options.log_bytes_max)?;
        let mut command = Command::new(&self.options.program);
        command
            .args([request.instance.tier.name(), "--node", NODE_FILE])
            .args(&request.arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if !self.options.boot_time.is_zero() {
            let millis = self.options.boot_time.as_millis();
            command.arg(format!("--boot-time={millis}ms"));
        }
        let child = in_own_session(&mut command).spawn()?;
        record.process = ProcessIdentity::of(child.id());
        self.children.lock().insert(child.id(), child);
        folder.write_record(&record)?;
        Ok(created_at_ms)
    }

    /// Takes the exit codes of children that have ended.
    fn reap(&self) {
        self.children.lock().retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    async fn stop(&self, process: &ProcessIdentity) -> Result<(), ProviderError> {
        for (signal, wait) in
            [(Signal::Terminate, self.options.terminate_grace), (Signal::Kill, KILL_WAIT)]
        {
            if !process.signal(signal).map_err(unavailable)? {
                return Ok(());
            }
            let mut waited = Duration::ZERO;
            while process.is_alive() && waited < wait {
                tokio::time::sleep(STOP_POLL).await;
                waited += STOP_POLL;
            }
            self.reap();
            if !process.is_alive() {
                return Ok(());
            }
        }
        let why = format!("process {} did not end after SIGKILL", process.pid);
        Err(ProviderError::Unavailable { why })
    }

    fn describe(&self, instance: InstanceId, folder: &MachineFolder) -> Option<Machine> {
        let record = folder.record();
        if folder.is_ended(record.as_ref()) {
            return None;
        }
        let is_running = folder.process(record.as_ref()).is_some();
        Some(Machine {
            id: machine_id(instance, record.as_ref()),
            instance,
            state: if is_running { MachineState::Running } else { MachineState::Dead },
            addresses: self.options.addresses.of(instance)?,
            created_at_ms: record.map_or(0, |record| record.created_at_ms),
        })
    }
}

#[async_trait]
impl ComputeProvider for LocalCompute {
    fn addresses(&self, instance: InstanceId) -> Result<Addresses, ProviderError> {
        self.options.addresses.of(instance).ok_or_else(|| {
            let why = format!("the local network has slots 1 to {}", AddressPlan::SLOT_MAX);
            ProviderError::NoPlace { instance, why }
        })
    }

    async fn create(&self, request: &MachineRequest) -> Result<MachineId, ProviderError> {
        let _one_change = self.changing.lock().await;
        let _one_manager = self.lock().await?;
        self.reap();
        let instance = request.instance;
        self.addresses(instance)?;
        let folder = MachineFolder::new(&self.instances, instance);
        let record = folder.record();
        match &record {
            ended if folder.is_ended(ended.as_ref()) => {
                folder.remove(&self.logs).map_err(unavailable)?;
            }
            Some(record) if record.token == request.token => {
                return Ok(machine_id(instance, Some(record)));
            }
            // A dead machine keeps its slot until it is terminated: its log may be wanted.
            Some(_) => return Err(ProviderError::SlotTaken { instance }),
            None if folder.process(None).is_some() => {
                return Err(ProviderError::SlotTaken { instance });
            }
            None => folder.remove(&self.logs).map_err(unavailable)?,
        }
        match self.start(request, &folder) {
            Ok(created_at_ms) => Ok(id_of(instance, &request.token, created_at_ms)),
            Err(error) => {
                // Nothing half made stays behind, so that the next attempt starts afresh.
                if folder.process(folder.record().as_ref()).is_none() {
                    folder.remove(&self.logs).map_err(unavailable)?;
                }
                Err(unavailable(error))
            }
        }
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.reap();
        let folders = machine_folders(&self.instances).map_err(unavailable)?;
        Ok(folders.iter().filter_map(|(id, folder)| self.describe(*id, folder)).collect())
    }

    async fn terminate(&self, id: &MachineId) -> Result<(), ProviderError> {
        let _one_change = self.changing.lock().await;
        let _one_manager = self.lock().await?;
        let Some(instance) = instance_of(id) else {
            return Ok(());
        };
        let folder = MachineFolder::new(&self.instances, instance);
        let record = folder.record();
        if record.is_some() && machine_id(instance, record.as_ref()) != *id {
            // The slot belongs to a later machine; the one that was meant is gone.
            return Ok(());
        }
        if let Some(process) = folder.process(record.as_ref()) {
            if let Some(record) = record {
                let ending = MachineRecord { is_ending: true, ..record };
                folder.write_record(&ending).map_err(unavailable)?;
            }
            self.stop(&process).await?;
        }
        self.reap();
        folder.remove(&self.logs).map_err(unavailable)
    }
}

fn machine_id(instance: InstanceId, record: Option<&MachineRecord>) -> MachineId {
    let (token, created_at_ms) =
        record.map_or(("", 0), |record| (record.token.as_str(), record.created_at_ms));
    id_of(instance, token, created_at_ms)
}

/// The slot, the token and the birth together: a slot and its token are used again, and an old id
/// must not hit the heir.
fn id_of(instance: InstanceId, token: &str, created_at_ms: u64) -> MachineId {
    MachineId::new(format!("{instance}/{token}@{created_at_ms}"))
}

fn instance_of(id: &MachineId) -> Option<InstanceId> {
    id.as_str().split_once('/')?.0.parse().ok()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: io::Error) -> ProviderError {
    ProviderError::Unavailable { why: error.to_string() }
}

/// Machines of a data directory that have a live process, whoever started them.
///
/// # Errors
///
/// The folder cannot be read.
pub fn live_machines(data: &Path) -> io::Result<Vec<(InstanceId, ProcessIdentity)>> {
    let folders = machine_folders(&data.join("instances"))?;
    let live = |(instance, folder): (InstanceId, MachineFolder)| {
        let process = folder.process(folder.record().as_ref())?;
        Some((instance, process))
    };
    Ok(folders.into_iter().filter_map(live).collect())
}

/// Removes what dead machines left in a data directory; their logs are kept.
///
/// # Errors
///
/// A folder cannot be read or removed.
pub fn remove_dead_machines(data: &Path) -> io::Result<()> {
    for (_, folder) in machine_folders(&data.join("instances"))? {
        if folder.process(folder.record().as_ref()).is_none() {
            folder.remove(&data.join("logs"))?;
        }
    }
    Ok(())
}

/// Every folder below `instances` that is named like an instance, in the order of the names.
fn machine_folders(instances: &Path) -> io::Result<Vec<(InstanceId, MachineFolder)>> {
    let entries = match fs::read_dir(instances) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let instance: InstanceId = entry.file_name().to_str()?.parse().ok()?;
            Some((instance, MachineFolder::new(instances, instance)))
        })
        .collect();
    folders.sort_by_key(|(instance, _)| *instance);
    Ok(folders)
}

#[cfg(test)]
mod tests;
