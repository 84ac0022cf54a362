//! Listing runs: filters, order, pages. The one statement that is put together at run time, because its
//! order and its filters are the caller's; every value is still bound.

use std::{collections::BTreeMap, ops::ControlFlow};

use futures_util::TryStreamExt;
use protocol::{
    ids::{EnvironmentId, RunId},
    run::RunState,
};
use sqlx::QueryBuilder;

use super::{
    Run, Store, StoreError, on_pool,
    runs::{Row, run_columns},
};
use crate::scope::Scope;

/// Where a page is cut although more would fit its limit: prompts are long.
const MAX_PAGE_BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortBy {
    #[default]
    UpdatedAt,
    CreatedAt,
    Title,
    /// The run's `config.name`.
    Agent,
}

impl SortBy {
    fn column(self) -> &'static str {
        match self {
            Self::UpdatedAt => "updated_at",
            Self::CreatedAt => "created_at",
            Self::Title => "title",
            Self::Agent => "coalesce(name, '')",
        }
    }

    pub(crate) fn is_time(self) -> bool {
        matches!(self, Self::UpdatedAt | Self::CreatedAt)
    }
}

/// Which runs, in which order. Everything set must hold.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Any of these; all when empty.
    pub states: Vec<RunState>,
    pub name: Option<String>,
    pub model_id: Option<String>,
    pub source: Option<String>,
    /// `Some(None)`: runs without an environment.
    pub environment_id: Option<Option<EnvironmentId>>,
    /// Runs below this one, at any depth.
    pub ancestor_run_id: Option<RunId>,
    pub created_after: Option<i64>,
    pub created_before: Option<i64>,
    pub updated_after: Option<i64>,
    /// Of this conversation, its first run included.
    pub conversation_id: Option<RunId>,
    /// Kept an artifact of this type.
    pub artifact_type: Option<String>,
    /// Part of the title or the prompt, in any case.
    pub text: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub sort_by: SortBy,
    pub ascending: bool,
}

/// Where a page ended: the sorted value of its last run, and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) value: String,
    pub(crate) id: String,
}

impl Store {
    /// At most `limit` runs after `mark`, and where they ended if there are more.
    pub(crate) async fn list_runs(
        &self,
        scope: &Scope,
        filter: &RunFilter,
        limit: u32,
        mark: Option<&Mark>,
    ) -> Result<(Vec<Run>, Option<Mark>), StoreError> {
        let limit = limit.max(1) as usize;
        let mut page: Vec<Row> = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        let mut take = |row: Row| {
            bytes += row.bytes();
            if page.len() == limit || (bytes > MAX_PAGE_BYTES && !page.is_empty()) {
                more = true;
                return ControlFlow::Break(());
            }
            page.push(row);
            ControlFlow::Continue(())
        };
        on_pool!(self, |db| {
            let mut query = QueryBuilder::new("select ");
            query.push(run_columns!()).push(" from runs where true");
            narrow!(query, scope, filter, mark);
            query.push(" limit ").push_bind(i64::try_from(limit).unwrap_or(500) + 1);
            let mut rows = query.build_query_as::<Row>().fetch(db);
            while let Some(row) = rows.try_next().await? {
                if take(row).is_break() {
                    break;
                }
            }
        });
        let end = page.last().filter(|_| more).map(|row| Mark {
            value: match filter.sort_by {
                SortBy::UpdatedAt => row.updated_at.to_string(),
                SortBy::CreatedAt => row.created_at.to_string(),
                SortBy::Title => row.title.clone(),
                SortBy::Agent => row.name.clone().unwrap_or_default(),
            },
            id: row.id.clone(),
        });
        let runs = page.into_iter().map(Run::try_from).collect::<Result<_, _>>()?;
        Ok((runs, end))
    }
}

/// The conditions and the order. A macro, because a query builder is of one driver's type.
macro_rules! narrow {
    ($query:ident, $scope:ident, $filter:ident, $mark:ident) => {
        if !$scope.is_admin() {
            $query.push(" and owner = ").push_bind($scope.owner().as_str());
        }
        if !$filter.states.is_empty() {
            let mut list = $query.push(" and state in (").separated(", ");
            for state in &$filter.states {
                list.push_bind(state.as_str());
            }
            $query.push(")");
        }
        for (column, value) in [
            ("name", &$filter.name),
            ("model_id", &$filter.model_id),
            ("source", &$filter.source),
        ] {
            if let Some(value) = value {
                $query.push(format_args!(" and {column} = ")).push_bind(value);
            }
        }
        if let Some(id) = &$filter.conversation_id {
            $query.push(" and (id = ").push_bind(id.as_str());
            $query.push(" or conversation_id = ").push_bind(id.as_str()).push(")");
        }
        match &$filter.environment_id {
            Some(Some(id)) => {
                $query.push(" and environment_id = ").push_bind(id.as_str());
            }
            Some(None) => {
                $query.push(" and environment_id is null");
            }
            None => {}
        }
        if let Some(id) = &$filter.ancestor_run_id {
            $query
                .push(
                    " and id in (with recursive below (id) as (
                          select id from runs where parent_run_id = ",
                )
                .push_bind(id.as_str())
                .push(
                    " union select runs.id from runs join below on runs.parent_run_id = below.id)
                      select id from below)",
                );
        }
        for (condition, at) in [
            (" and created_at > ", $filter.created_after),
            (" and created_at < ", $filter.created_before),
            (" and updated_at > ", $filter.updated_after),
        ] {
            if let Some(at) = at {
                $query.push(condition).push_bind(at);
            }
        }
        if let Some(kind) = &$filter.artifact_type {
            $query
                .push(" and exists (select 1 from artifacts where run_id = runs.id and artifact_type = ")
                .push_bind(kind)
                .push(")");
        }
        if let Some(text) = &$filter.text {
            let pattern = like_pattern(text);
            $query
                .push(" and (lower(title) like ")
                .push_bind(pattern.clone())
                .push(" escape '!' or lower(prompt) like ")
                .push_bind(pattern)
                .push(" escape '!')");
        }
        for (key, value) in &$filter.metadata {
            $query
                .push(" and exists (select 1 from run_metadata where run_id = runs.id and key = ")
                .push_bind(key)
                .push(" and value = ")
                .push_bind(value)
                .push(")");
        }
        let column = $filter.sort_by.column();
        let (than, order) = if $filter.ascending { (">", "asc") } else { ("<", "desc") };
        if let Some(mark) = $mark {
            $query.push(format_args!(" and ({column}, id) {than} ("));
            if $filter.sort_by.is_time() {
                $query.push_bind(mark.value.parse::<i64>().unwrap_or_default());
            } else {
                $query.push_bind(&mark.value);
            }
            $query.push(", ").push_bind(&mark.id).push(")");
        }
        $query.push(format_args!(" order by {column} {order}, id {order}"));
    };
}
use narrow;

/// `text` anywhere, its own wildcards taken literally. Only ASCII letters lose their case, as in the databases.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_ascii_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
