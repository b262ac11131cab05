//! The embedded cluster: storage nodes in three zones, a MemDS fleet of three, all in this process.
//! They talk by the frames that machines would exchange; nothing else joins them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use memds::{ClientOptions, MemdsClient, MemdsNode, Publisher};
use router::{Hub, RouteCache};
use storage::{Assignment, LocalNodes, Node, NodeOptions, Publish, RowBudget, Surroundings};
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::notice::Listener;
use wire::peer::{LocalTransport, Transport};
use wire::placement::PlacementRange;
use wire::service::StorageService;

use crate::config::Config;
use crate::folder::Folder;
use crate::memory::Division;

const ZONES: [&str; 3] = ["a", "b", "c"];
/// Ids of the MemDS nodes.
const MEMDS: [NodeId; 3] = [NodeId(101), NodeId(102), NodeId(103)];
/// The router's address for MemDS's answers.
const ROUTER: NodeId = NodeId(201);

/// Most (table, slot) pairs that the route cache holds.
const CACHED_SLOTS_MAX: u64 = 1 << 20;
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
    /// *Errors*: a folder that cannot be used. A single damaged node is left out if the others are
    /// a quorum.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Embedded> {
        let folder = Folder::open(config)?;
        let transport = Arc::new(LocalTransport::default());
        let shared: Arc<dyn Transport> = transport.clone();
        let mut fleet = Vec::new();
        for id in MEMDS {
            let node = Arc::new(MemdsNode::new(id, Arc::clone(&shared)));
            transport.register(id, node.clone());
            fleet.push(node);
        }
        let hub = Arc::new(Hub::default());
        let cache = RouteCache::new(CACHED_SLOTS_MAX);
        let learning = Arc::clone(&cache);
        let options = ClientOptions::default();
        let client = MemdsClient::new(ROUTER, MEMDS.to_vec(), shared, options, move |route| {
            learning.learn(route);
        });
        transport.register(ROUTER, client.clone());
        let nodes = open_nodes(config, &folder, &transport, &(hub.clone() as Arc<dyn Listener>))?;
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
        tokio::join!(Arc::clone(&self.client).run(), heal);
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
    folder: &Folder,
    transport: &Arc<LocalTransport>,
    listener: &Arc<dyn Listener>,
) -> anyhow::Result<LocalNodes> {
    let members: Vec<_> = (1..=config.replicas).map(NodeId).collect();
    let assignments: Arc<[Assignment]> = (0..config.databases)
        .map(|table| Assignment {
            partition: PartitionId(u64::from(table) + 1),
            range: PlacementRange::whole(TableId(table)),
            members: members.clone(),
        })
        .collect();
    let options = node_options(config);
    let mut nodes = LocalNodes::default();
    let mut failed = 0;
    for (id, zone) in members.iter().copied().zip(ZONES) {
        let zone = Zone(zone.to_owned());
        let (seat, dir) = (zone.clone(), folder.node(id.0));
        let (transport, assignments) = (Arc::clone(transport), Arc::clone(&assignments));
        let listener = Arc::clone(listener);
        let options = options.clone();
        let open = move || {
            let shared: Arc<dyn Transport> = transport.clone();
            let publisher = Publisher::new(id, MEMDS.to_vec(), Arc::clone(&shared));
            let publish: Publish =
                Arc::new(move |route| publisher.announce(std::slice::from_ref(&route)));
            let listener = Arc::clone(&listener);
            let surroundings = Surroundings { transport: shared, publish, listener };
            let node =
                Node::open(id, zone.clone(), &dir, options.clone(), &assignments, surroundings)?;
            transport.register(id, node.frame_handler());
            Ok(node)
        };
        if let Err(error) = nodes.add(id, seat, Box::new(open)) {
            failed += 1;
            let error = anyhow::Error::new(error);
            tracing::error!(node = id.0, "node left out: {error:#}");
            if 2 * failed >= members.len() {
                return Err(error).context(format!("open node {id}"));
            }
        }
    }
    first_boot(&nodes, &members, &assignments);
    Ok(nodes)
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

fn node_options(config: &Config) -> NodeOptions {
    let division = Division::of(config.memory, config.replicas);
    let mut options = NodeOptions {
        memtable_bytes: division.memtable,
        rows: RowBudget::new(division.rows),
        ..NodeOptions::default()
    };
    options.lsm.cache_bytes = division.blocks;
    options
}
