//! `ozma token`: the tokens an admin issues.

use clap::{Args, Subcommand, ValueEnum};
use protocol::{
    api::tokens::{CreateToken, TokenCreated, TokenKind, TokenList},
    ids::TenantId,
};

use crate::{
    client::Client, connection::AdminConnection, failure::Failure, surroundings::Surroundings,
    table::Table, term::Term, text::shorten,
};

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    connection: AdminConnection,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Issue a token; it is shown this once
    Create {
        /// What it is for
        label: String,
        /// Who is to use it
        #[arg(long, value_enum, default_value_t = Kind::Tenant)]
        kind: Kind,
        /// Another token of this tenant, rather than a new tenant
        #[arg(long, value_name = "TENANT_ID")]
        tenant: Option<TenantId>,
        /// Print the token and nothing else
        #[arg(long, short)]
        quiet: bool,
    },
    /// The tokens that were issued, without their texts
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make a token useless from now on
    Revoke { id: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Tenant,
    Worker,
}

const PATH: &str = "/api/v1/tokens";

pub(crate) async fn run(
    args: TokenArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    match args.command {
        TokenCommand::Create { label, kind, tenant, quiet } => {
            let kind = match kind {
                Kind::Tenant => TokenKind::Tenant,
                Kind::Worker => TokenKind::Worker,
            };
            let body = CreateToken { kind, label, tenant_id: tenant };
            let made: TokenCreated = client.post(PATH, &body).await?;
            // The one place that shows a token: it was asked for, and there is no second time.
            term.line(made.token.expose())?;
            if !quiet {
                term.note(&format!(
                    "token {} for {:?}; it is not shown again",
                    made.token_info.id, made.token_info.label
                ));
            }
        }
        TokenCommand::List { json } => {
            let list: TokenList = client.get(PATH, &[]).await?;
            if json {
                return Ok(term.json(&list)?);
            }
            let mut table = Table::new(&["ID", "KIND", "CREATED", "TENANT", "LABEL"]);
            for token in list.tokens {
                let kind = match token.kind {
                    TokenKind::Tenant => "tenant",
                    TokenKind::Worker => "worker",
                };
                let tenant = token.tenant_id.map_or("-".to_owned(), |id| shorten(id.as_str(), 13));
                let created = token.created_at.to_string();
                table.row(&[token.id, kind.to_owned(), created, tenant, token.label]);
            }
            term.table(&table)?;
        }
        TokenCommand::Revoke { id } => {
            client.delete(&format!("{PATH}/{}", segment(&id)?)).await?;
            term.line(&format!("revoked {id}"))?;
        }
    }
    Ok(())
}

/// An id as one path segment.
fn segment(id: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.chars().all(plain) {
        Ok(id)
    } else {
        Err(Failure::usage("the id of a token has letters, digits, '-' and '_' only")
            .hint("`ozma token list` shows the ids"))
    }
}
