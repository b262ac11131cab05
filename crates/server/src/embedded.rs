//! The embedded cluster: storage nodes in three zones, a MemDS fleet of three, all in this process.
//! They talk by the frames that machines would exchange; nothing else joins them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use memds::{ClientOptions, MemdsClient, MemdsNode, Publisher};
use router::{Hub, RouteCache};
use storage::{
    Assignment, Faults, LocalNodes, Node, NodeOptions, NodeSeat, OpenError, Publish, RowBudget,
    Surroundings,
};
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::notice::Told;
use wire::peer::{LocalTransport, Transport};
use wire::placement::PlacementRange;
use wire::service::StorageService;

use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::folder::Folder;
use crate::links::Links;
use crate::memory::Division;

const ZONES: [&str; 3] = ["a", "b", "c"];
/// Ids of the MemDS nodes.
const MEMDS: [NodeId; 3] = [NodeId(101), NodeId(102), NodeId(103)];
/// The router's address for MemDS's answers.
const ROUTER: NodeId = NodeId(201);

/// Most routes, one a partition, that the route cache holds; each takes some 100 bytes.
const CACHED_ROUTES_MAX: usize = 1 << 20;
/// How often it is looked for nodes that want to begin anew.
const TEND_INTERVAL: Duration = Duration::from_millis(200);
/// How often a MemDS node compares its map with another's.
const HEAL_INTERVAL: Duration = Duration::from_secs(5);

/// See the module's text.
pub(crate) struct Embedded {
    nodes: Arc<LocalNodes>,
    fleet: Vec<Arc<MemdsNode>>,
    client: Arc<MemdsClient>,
    cache: Arc<RouteCache>,
    hub: Arc<Hub>,
    // Held to the end of the process: the lock of the data folder.
    _folder: Folder,
}

impl Embedded {
    /// Opens the data folder and starts all nodes.
    ///
    /// *Errors*: a folder that cannot be used. Nodes that cannot be opened are left out if the others
    /// are more than those; one that is damaged begins anew then.
    pub(crate) fn open(config: &Config, descriptors: Descriptors) -> anyhow::Result<Embedded> {
        let mut folder = Folder::open(config)?;
        let transport = Arc::new(LocalTransport::default());
        let links = config.enable_faults.then(|| Links::start(transport.clone())).transpose()?;
        let shared: Arc<dyn Transport> = match &links {
            Some(links) => links.clone(),
            None => transport.clone(),
        };
        let mut fleet = Vec::new();
        for id in MEMDS {
            let node = Arc::new(MemdsNode::new(id, Arc::clone(&shared)));
            transport.register(id, node.clone());
            fleet.push(node);
        }
        let hub = Arc::new(Hub::default());
        let cache = RouteCache::new(CACHED_ROUTES_MAX);
        let learning = Arc::clone(&cache);
        let options = ClientOptions::default();
        let to_fleet = Arc::clone(&shared);
        let client = MemdsClient::new(ROUTER, MEMDS.to_vec(), to_fleet, options, move |route| {
            learning.learn(route);
        });
        transport.register(ROUTER, client.clone());
        let options = node_options(config, descriptors, &hub);
        let nodes = open_nodes(config, &mut folder, (&transport, &shared), options)?;
        if let Some(links) = links {
            nodes.set_links(Box::new(move |fault| links.fault(fault)));
        }
        Ok(Embedded { nodes: Arc::new(nodes), fleet, client, cache, hub, _folder: folder })
    }

    /// Runs what needs a runtime: the mirror of lookups, and MemDS nodes healing each other. Never
    /// resolves.
    pub(crate) async fn run(&self) {
        let heal = async {
            loop {
                tokio::time::sleep(HEAL_INTERVAL).await;
                for (node, peer) in self.fleet.iter().zip(MEMDS.iter().cycle().skip(1)) {
                    node.heal_from(*peer);
                }
            }
        };
        let tend = async {
            loop {
                tokio::time::sleep(TEND_INTERVAL).await;
                let nodes = Arc::clone(&self.nodes);
                // Opening a node takes long; a panic in there has said so on stderr.
                let _ = tokio::task::spawn_blocking(move || nodes.tend()).await;
            }
        };
        tokio::join!(Arc::clone(&self.client).run(), heal, tend);
    }

    pub(crate) fn storage(&self) -> Arc<dyn StorageService> {
        self.nodes.clone()
    }

    pub(crate) fn memds(&self) -> Arc<MemdsClient> {
        self.client.clone()
    }

    pub(crate) fn cache(&self) -> Arc<RouteCache> {
        self.cache.clone()
    }

    /// Who is told what unasked: the nodes tell it, the router's connections listen.
    pub(crate) fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// Stops all nodes; everything acknowledged is on their disks already.
    pub(crate) fn stop(&self) {
        self.nodes.stop();
    }
}

fn open_nodes(
    config: &Config,
    folder: &mut Folder,
    (transport, shared): (&Arc<LocalTransport>, &Arc<dyn Transport>),
    options: NodeOptions,
) -> anyhow::Result<LocalNodes> {
    let members: Vec<_> = (1..=config.replicas).map(NodeId).collect();
    let tables = (0..config.databases).chain([TableId::SYSTEM.0]);
    let assignments: Vec<Assignment> = tables
        .map(|table| Assignment {
            partition: PartitionId(u64::from(table) + 1),
            range: PlacementRange::whole(TableId(table)),
            members: members.clone(),
        })
        .collect();
    let partitions = assignments.iter().map(|assignment| assignment.partition).collect();
    let (scripting, shapes) = (Arc::clone(&options.scripting), Arc::clone(&options.shapes));
    let mut nodes = LocalNodes::new(partitions, scripting, shapes);
    for (id, zone) in options.nodes.clone() {
        // What a node has begun to hold is in its folder, or lost.
        let made = folder.made(id.0);
        let has_system = folder.has_system(id.0);
        let begins = assignments.iter().filter(|assignment| match assignment.range.table {
            TableId::SYSTEM => !has_system,
            table => table.0 >= made,
        });
        let (begins, folder_of_node) = (begins.cloned().collect(), folder.node(id.0));
        let faults = Arc::new(Faults::default());
        let open = {
            let (zone, dir, options) = (zone.clone(), folder_of_node.clone(), options.clone());
            let (transport, shared) = (Arc::clone(transport), Arc::clone(shared));
            let faults = Arc::clone(&faults);
            move |assignments: &[Assignment]| {
                let publisher = Publisher::new(id, MEMDS.to_vec(), Arc::clone(&shared));
                let publish: Publish =
                    Arc::new(move |route| publisher.announce(std::slice::from_ref(&route)));
                let (transport_of_node, faults) = (Arc::clone(&shared), Arc::clone(&faults));
                let surroundings = Surroundings { transport: transport_of_node, publish, faults };
                let (zone, options) = (zone.clone(), options.clone());
                let node = Node::open(id, zone, &dir, options, assignments, surroundings)?;
                transport.register(id, node.frame_handler());
                Ok(node)
            }
        };
        let (open, folder_path) = (Box::new(open), folder_of_node);
        let seat = NodeSeat { zone, folder: folder_path, assignments: begins, faults, open };
        nodes.add(id, seat);
    }
    let failed = nodes.open();
    for (id, _) in &options.nodes {
        if failed.iter().all(|(other, _)| other != id) {
            folder.note_made(id.0)?;
        }
    }
    open_damaged(&nodes, folder, failed, options.nodes.len())?;
    first_boot(&nodes, &members, &assignments);
    Ok(nodes)
}

/// Nodes that are damaged begin anew, if the groups of all partitions can do without them.
///
/// *Errors*: half of the nodes do not run.
fn open_damaged(
    nodes: &LocalNodes,
    folder: &mut Folder,
    failed: Vec<(NodeId, OpenError)>,
    count: usize,
) -> anyhow::Result<()> {
    let mut down = 0;
    for (id, error) in failed {
        let opened = match &error {
            OpenError::Damaged(_) => nodes.start(id).map_err(anyhow::Error::msg),
            _ => Err(anyhow::Error::new(error)),
        };
        match opened {
            Ok(()) => folder.note_made(id.0)?,
            Err(error) => {
                down += 1;
                tracing::error!(node = id.0, "node left out: {error:#}");
                if 2 * down >= count {
                    return Err(error).context(format!("open node {id}"));
                }
            }
        }
    }
    Ok(())
}

/// Partitions that nobody ever led get a leader at once, spread over the nodes.
fn first_boot(nodes: &LocalNodes, members: &[NodeId], assignments: &[Assignment]) {
    for (assignment, id) in assignments.iter().zip(members.iter().cycle()) {
        let blank =
            |id: &NodeId| nodes.node(*id).is_none_or(|node| node.is_blank(assignment.partition));
        if members.iter().all(blank)
            && let Some(node) = nodes.node(*id)
        {
            node.campaign(assignment.partition);
        }
    }
}

fn node_options(config: &Config, descriptors: Descriptors, hub: &Arc<Hub>) -> NodeOptions {
    let division = Division::of(config.memory, config.nodes);
    let zones = ZONES.iter().cycle().map(|zone| Zone((*zone).to_owned()));
    let mut options = NodeOptions {
        memtable_bytes: division.memtable,
        rows: RowBudget::new(division.rows),
        nodes: (1..=config.nodes).map(NodeId).zip(zones).collect(),
        heal_after: config.heal_after,
        rebuild_after: config.rebuild_after,
        log_bytes: config.log_bytes,
        snapshot_rate: config.snapshot_rate,
        catch_up_rate: config.catch_up_rate,
        unsynced_bytes: config.unsynced_bytes,
        dead_generations: config.dead_generations,
        dedup: config.dedup,
        listener: Told(hub.clone()),
        ..NodeOptions::default()
    };
    options.lsm.cache_bytes = division.blocks;
    options.lsm.open_tables = descriptors.tables as usize;
    options.paxos.held_bytes = config.held_bytes as usize;
    options.paxos.catch_up_ahead_bytes = config.catch_up_ahead_bytes as usize;
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, parse};

    fn limits(args: &[&str]) -> [u64; 4] {
        let args = args.iter().map(|arg| (*arg).to_owned());
        let Ok(Invocation::Run(config)) = parse(args) else { panic!("a good command line") };
        let descriptors = Descriptors { clients_max: 1, below: 64, tables: 8 };
        let options = node_options(&config, descriptors, &Arc::new(Hub::default()));
        let paxos = &options.paxos;
        let (held, ahead) = (paxos.held_bytes as u64, paxos.catch_up_ahead_bytes as u64);
        [options.unsynced_bytes, held, ahead, options.dead_generations]
    }

    #[test]
    fn limits_of_a_node_are_those_of_the_command_line() {
        let storage = NodeOptions::default();
        let (held, ahead) = (storage.paxos.held_bytes, storage.paxos.catch_up_ahead_bytes);
        let own = [storage.unsynced_bytes, held as u64, ahead as u64, storage.dead_generations];
        assert_eq!(limits(&[]), own, "what is not said is as the store has it");
        let told = limits(&[
            "--unsynced-bytes=1mb",
            "--held-bytes=2mb",
            "--catch-up-ahead-bytes=3mb",
            "--dead-generations=4",
        ]);
        assert_eq!(told, [1 << 20, 2 << 20, 3 << 20, 4]);
    }
}
