//! One batch as one statement: requests laid out in columns, and what the database made of each.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use daybook_domain::{LogId, RunId, StreamId};

use crate::error::{AppendError, StoreError};
use crate::prepare::Prepared;
use crate::types::{Appended, Expected, LeaseOp};

/// Why a request of a batch that went through wrote nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The caller is to know.
    Append(AppendError),
    /// It was encrypted under a key that is not the session's (any more): prepare it again.
    Key,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Append(AppendError::Store(error))
    }
}

pub(crate) type Outcome = Result<Appended, Refused>;

#[derive(Default)]
struct Columns<'a> {
    principal: Vec<&'a str>,
    interface: Vec<&'a str>,
    correlation: Vec<Option<&'a str>>,
    causation: Vec<Option<&'a str>>,
    occurred: Vec<DateTime<Utc>>,
    command_principal: Vec<Option<&'a str>>,
    command_route: Vec<Option<&'a str>>,
    command_key: Vec<Option<&'a str>>,
    command_hash: Vec<Option<&'a [u8]>>,
    command_resource: Vec<Option<&'a str>>,
    lease_op: Vec<i16>,
    lease_tree: Vec<Option<&'a str>>,
    lease_node: Vec<Option<&'a str>>,
    lease_epoch: Vec<Option<i64>>,
    lease_component: Vec<Option<&'a str>>,
    lease_tools: Vec<Option<String>>,
    write_request: Vec<i32>,
    write_stream: Vec<&'a str>,
    write_expected: Vec<i64>,
    write_count: Vec<i32>,
    event_write: Vec<i32>,
    event_index: Vec<i32>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_schema: Vec<i16>,
    event_payload: Vec<&'a str>,
    event_personal: Vec<Option<&'a [u8]>>,
    event_key: Vec<Option<Uuid>>,
    event_content: Vec<&'a [u8]>,
    key_request: Vec<i32>,
    key_id: Vec<Uuid>,
    key_session: Vec<&'a str>,
    key_owner: Vec<&'a str>,
    key_owner_key: Vec<Uuid>,
    key_wrapped: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    fn add(&mut self, prepared: &'a Prepared) {
        let request = &*prepared.request;
        let meta = &request.meta;
        self.principal.push(&meta.principal);
        self.interface.push(&meta.interface);
        self.correlation.push(meta.correlation_id.as_deref());
        self.causation.push(meta.causation_id.as_deref());
        self.occurred.push(prepared.occurred_at);
        let number = self.principal.len() as i32;
        let command = request.command.as_ref();
        self.command_principal.push(command.map(|command| command.principal.as_str()));
        self.command_route.push(command.map(|command| command.route.as_str()));
        self.command_key.push(command.map(|command| command.key.as_str()));
        self.command_hash.push(command.map(|command| command.body_hash.as_slice()));
        self.command_resource.push(command.map(|command| command.resource.as_str()));
        self.add_lease(&request.lease);
        self.add_writes(number, prepared);
        for key in &prepared.keys {
            self.key_request.push(number);
            self.key_id.push(key.id);
            self.key_session.push(key.subject.session.as_str());
            self.key_owner.push(&key.owner);
            self.key_owner_key.push(key.owner_key);
            self.key_wrapped.push((!key.is_stored()).then_some(key.wrapped.as_slice()));
        }
    }

    fn add_lease(&mut self, lease: &'a LeaseOp) {
        let (op, tree, node, epoch, taken) = match lease {
            LeaseOp::None => (0, None, None, None, None),
            LeaseOp::Take { tree, node, epoch, component, tools } => {
                (1, Some(tree), Some(node), Some(*epoch), Some((component, tools)))
            }
            LeaseOp::Hold { tree, node, epoch } => (2, Some(tree), Some(node), Some(*epoch), None),
            LeaseOp::Release { tree, node, epoch } => (3, Some(tree), Some(node), Some(*epoch), None),
        };
        self.lease_op.push(op);
        self.lease_tree.push(tree.map(RunId::as_str));
        self.lease_node.push(node.map(String::as_str));
        self.lease_epoch.push(epoch.map(|epoch| epoch as i64));
        self.lease_component.push(taken.map(|(component, _)| component.as_str()));
        self.lease_tools.push(taken.map(|(_, tools)| serde_json::Value::from(tools.as_slice()).to_string()));
    }

    fn add_writes(&mut self, number: i32, prepared: &'a Prepared) {
        for (write, events) in prepared.request.writes.iter().zip(&prepared.writes) {
            self.write_request.push(number);
            self.write_stream.push(write.stream.as_str());
            self.write_expected.push(match write.expected {
                Expected::Any => -1,
                Expected::Version(version) => version as i64,
            });
            self.write_count.push(events.len() as i32);
            let write_number = self.write_request.len() as i32;
            for (index, event) in events.iter().enumerate() {
                self.event_write.push(write_number);
                self.event_index.push(index as i32 + 1);
                self.event_id.push(event.id);
                self.event_type.push(event.kind);
                self.event_schema.push(event.schema_version);
                self.event_payload.push(&event.payload);
                self.event_personal.push(event.personal.as_deref());
                self.event_key.push(event.key_id);
                self.event_content.push(&event.content);
            }
        }
    }
}

#[derive(sqlx::FromRow)]
struct BatchRow {
    outcomes: Vec<i16>,
    details: Vec<Option<String>>,
    actuals: Vec<i64>,
    versions: Vec<i64>,
    positions: Vec<Option<i64>>,
    recorded_us: i64,
}

/// Appends all of `batch`, in order, each request for itself.
pub(crate) async fn submit(
    connection: &mut PgConnection,
    log: LogId,
    batch: &[&Prepared],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut c = Columns::default();
    batch.iter().for_each(|prepared| c.add(prepared));
    let row: BatchRow = sqlx::query_as(
        "SELECT * FROM append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)",
    )
    .bind(log.0)
    .bind(c.principal)
    .bind(c.interface)
    .bind(c.correlation)
    .bind(c.causation)
    .bind(c.occurred)
    .bind(c.command_principal)
    .bind(c.command_route)
    .bind(c.command_key)
    .bind(c.command_hash)
    .bind(c.command_resource)
    .bind(c.lease_op)
    .bind(c.lease_tree)
    .bind(c.lease_node)
    .bind(c.lease_epoch)
    .bind(c.lease_component)
    .bind(c.lease_tools)
    .bind(c.write_request)
    .bind(c.write_stream)
    .bind(c.write_expected)
    .bind(c.write_count)
    .bind(c.event_write)
    .bind(c.event_index)
    .bind(c.event_id)
    .bind(c.event_type)
    .bind(c.event_schema)
    .bind(c.event_payload)
    .bind(c.event_personal)
    .bind(c.event_key)
    .bind(c.event_content)
    .bind(c.key_request)
    .bind(c.key_id)
    .bind(c.key_session)
    .bind(c.key_owner)
    .bind(c.key_owner_key)
    .bind(c.key_wrapped)
    .fetch_one(connection)
    .await?;
    Ok(outcomes(batch, &row))
}

fn outcomes(batch: &[&Prepared], row: &BatchRow) -> Vec<Outcome> {
    let mut first_write = 0;
    let each = batch.iter().enumerate().map(|(at, prepared)| {
        let writes = first_write..first_write + prepared.writes.len();
        first_write = writes.end;
        let actual = row.actuals.get(at).map_or(0, |actual| *actual as u64);
        match row.outcomes.get(at) {
            Some(0) => {
                let positions = row.positions.get(writes.clone()).unwrap_or_default();
                let last = positions.iter().flatten().max().map_or(actual, |position| *position as u64);
                let versions = row.versions.get(writes).unwrap_or_default().iter().map(|v| *v as u64).collect();
                Ok(Appended { last_position: last, versions, recorded_at_ms: row.recorded_us.div_euclid(1000) })
            }
            Some(outcome) => {
                let detail = row.details.get(at).cloned().flatten().unwrap_or_default();
                Err(refused(*outcome, detail, actual, &prepared.request.lease))
            }
            None => Err(Refused::from(StoreError::Unexpected("a batch answered for too few requests"))),
        }
    });
    each.collect()
}

fn refused(outcome: i16, detail: String, actual: u64, lease: &LeaseOp) -> Refused {
    match (outcome, lease) {
        (1 | 2, _) => Refused::Append(AppendError::Duplicate { resource: detail, same_body: outcome == 1 }),
        (3, _) => Refused::Append(AppendError::Conflict { stream: StreamId::from_log(detail), actual }),
        (4, LeaseOp::Take { tree, .. } | LeaseOp::Hold { tree, .. } | LeaseOp::Release { tree, .. }) => {
            Refused::Append(AppendError::LostLease { tree: tree.clone() })
        }
        _ => Refused::Key,
    }
}
