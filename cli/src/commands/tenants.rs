//! `ozma tenants`: what each tenant has, and may have.

use clap::{Args, Subcommand};
use protocol::{
    api::limits::{TenantLimits, TenantList, TenantView},
    ids::TenantId,
};

use crate::{
    client::Client, connection::AdminConnection, failure::Failure, surroundings::Surroundings,
    table::Table, term::Term,
};

#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    #[command(flatten)]
    connection: AdminConnection,
    #[command(subcommand)]
    command: TenantsCommand,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// Tenants with runs that are not over, a limit or a token
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what one tenant may have; what is not named stays as it is
    Limit {
        #[arg(value_name = "TENANT_ID")]
        tenant: TenantId,
        /// Runs that may wait; 0 for no bound
        #[arg(long, value_name = "N")]
        queued: Option<u32>,
        /// Runs under way at once, the others wait; 0 for no bound
        #[arg(long, value_name = "N")]
        running: Option<u32>,
        /// Let the plane's settings hold again
        #[arg(long, conflicts_with_all = ["queued", "running"])]
        reset: bool,
    },
}

const PATH: &str = "/api/v1/tenants";

pub(crate) async fn run(
    args: TenantsArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    match args.command {
        TenantsCommand::List { json } => {
            let tenants = all(&client).await?;
            if json {
                return Ok(term.json(&TenantList { tenants, next: None })?);
            }
            Ok(term.table(&table(tenants))?)
        }
        TenantsCommand::Limit { tenant, queued, running, reset } => {
            let path = format!("{PATH}/{tenant}/limits");
            if reset {
                client.delete(&path).await?;
            }
            let mut view: TenantView = client.get(&path, &[]).await?;
            if queued.is_some() || running.is_some() {
                let limits = TenantLimits {
                    max_queued_runs: queued.or(view.own_limits.max_queued_runs),
                    max_running_runs: running.or(view.own_limits.max_running_runs),
                };
                view = client.put(&path, &limits).await?;
            }
            Ok(term.table(&table(vec![view]))?)
        }
    }
}

async fn all(client: &Client) -> Result<Vec<TenantView>, Failure> {
    let mut tenants = Vec::new();
    let mut query = Vec::new();
    loop {
        let page: TenantList = client.get(PATH, &query).await?;
        tenants.extend(page.tenants);
        let Some(next) = page.next else { return Ok(tenants) };
        query = vec![("after", next.to_string())];
    }
}

fn table(tenants: Vec<TenantView>) -> Table {
    let mut table = Table::new(&["TENANT", "QUEUED", "MAY QUEUE", "RUNNING", "MAY RUN"]);
    for tenant in tenants {
        // A star where it is the tenant's own limit and not the plane's.
        let limit = |limit: u32, own: Option<u32>| {
            let star = if own.is_some() { "*" } else { "" };
            if limit == 0 { format!("any{star}") } else { format!("{limit}{star}") }
        };
        let own = tenant.own_limits;
        table.row(&[
            tenant.tenant_id.to_string(),
            tenant.queued.to_string(),
            limit(tenant.max_queued_runs, own.max_queued_runs),
            tenant.running.to_string(),
            limit(tenant.max_running_runs, own.max_running_runs),
        ]);
    }
    table
}
