//! The queries. Each waits until its view has reached the log's head as it was when the question came.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::run::RunStatus;
use daybook_domain::{ApprovalId, LogId, RunId, SessionId, UserId};
use daybook_store::Store;

use crate::approvals::{self, ApprovalFilter, ApprovalPage, Approvals};
use crate::error::ViewError;
use crate::progress::Hub;
use crate::projection::{Projection, Scope};
use crate::runs::{self, RunFilter, RunRow, Runs};
use crate::sessions::{self, SessionFilter, SessionPage, SessionRow, Sessions};

/// The longest a read waits for its view.
const PATIENCE: Duration = Duration::from_millis(500);

/// An answer, and how far behind the log it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    /// The answer.
    pub value: T,
    /// How many events the view still lacked after half a second; normally 0.
    pub lag: u64,
}

/// The views' queries. Cheap to clone. Where `owner` is given, what belongs to others or to nobody is not there.
#[derive(Clone)]
pub struct Views {
    store: Store,
    hub: Arc<Hub>,
    patience: Duration,
}

impl Views {
    /// The views of a node that posts none itself; beside a runner use [`crate::Runner::views`], which answers sooner.
    pub fn new(store: Store) -> Self {
        Self::told_by(store, Arc::default())
    }

    pub(crate) fn told_by(store: Store, hub: Arc<Hub>) -> Self {
        Self { store, hub, patience: PATIENCE }
    }

    /// Waits as long as a test may take, so that no test depends on how fast the machine is.
    #[cfg(test)]
    pub(crate) fn patient(self) -> Self {
        Self { patience: Duration::from_secs(180), ..self }
    }

    /// Waits for the view and says which rows to read, and how many events they lack.
    async fn reach<P: Projection>(&self, log: LogId) -> Result<(Scope, u64), ViewError> {
        let head = self.store.head(log).await?;
        let progress = self.hub.progress(log, P::NAME, P::VERSION);
        let served = progress.reach(self.store.pool(), head, self.patience).await?;
        Ok((Scope { log, version: served.version }, head.saturating_sub(served.position)))
    }

    /// A run.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or the row cannot be read.
    pub async fn run(
        &self,
        log: LogId,
        owner: Option<&UserId>,
        run: &RunId,
    ) -> Result<Read<Option<RunRow>>, ViewError> {
        let (scope, lag) = self.reach::<Runs>(log).await?;
        Ok(Read { value: runs::one(self.store.pool(), scope, owner, run).await?, lag })
    }

    /// These runs, in no order; those that are not there are left out.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or a row cannot be read.
    pub async fn runs(&self, log: LogId, runs: Vec<RunId>) -> Result<Read<Vec<RunRow>>, ViewError> {
        let (scope, lag) = self.reach::<Runs>(log).await?;
        Ok(Read { value: runs::by_ids(self.store.pool(), scope, runs).await?, lag })
    }

    /// Where these runs stand; those that are not there are left out.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails.
    pub async fn run_statuses(
        &self,
        log: LogId,
        runs: Vec<RunId>,
    ) -> Result<Read<HashMap<RunId, RunStatus>>, ViewError> {
        let (scope, lag) = self.reach::<Runs>(log).await?;
        Ok(Read { value: runs::statuses(self.store.pool(), scope, runs).await?, lag })
    }

    /// The newest runs of a session that pass the filter, oldest first.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or a row cannot be read.
    pub async fn runs_of_session(
        &self,
        log: LogId,
        owner: Option<&UserId>,
        session: &SessionId,
        filter: &RunFilter,
    ) -> Result<Read<Vec<RunRow>>, ViewError> {
        let (scope, lag) = self.reach::<Runs>(log).await?;
        Ok(Read { value: runs::of_session(self.store.pool(), scope, owner, session, filter).await?, lag })
    }

    /// A session.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or the row cannot be read.
    pub async fn session(
        &self,
        log: LogId,
        owner: Option<&UserId>,
        session: &SessionId,
    ) -> Result<Read<Option<SessionRow>>, ViewError> {
        let (scope, lag) = self.reach::<Sessions>(log).await?;
        Ok(Read { value: sessions::one(self.store.pool(), scope, owner, session).await?, lag })
    }

    /// A page of approvals, newest first.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or a row cannot be read.
    pub async fn approvals(
        &self,
        log: LogId,
        owner: Option<&UserId>,
        filter: &ApprovalFilter,
    ) -> Result<Read<ApprovalPage>, ViewError> {
        let (scope, lag) = self.reach::<Approvals>(log).await?;
        Ok(Read { value: approvals::page(self.store.pool(), scope, owner, filter).await?, lag })
    }

    /// How many approvals wait for a decision.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails.
    pub async fn pending_approvals(&self, log: LogId, owner: Option<&UserId>) -> Result<Read<u64>, ViewError> {
        let (scope, lag) = self.reach::<Approvals>(log).await?;
        Ok(Read { value: approvals::pending(self.store.pool(), scope, owner).await?, lag })
    }

    /// Claims approvals of which the clock demands something at `now_ms` (unix milliseconds), at most `limit`: to be
    /// watched within half a minute, after which another caller gets them.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails.
    pub async fn claim_due_approvals(&self, log: LogId, now_ms: i64, limit: u32) -> Result<Vec<ApprovalId>, ViewError> {
        let (scope, _) = self.reach::<Approvals>(log).await?;
        approvals::claim_due(self.store.pool(), scope, now_ms, i64::from(limit)).await
    }

    /// A page of sessions.
    ///
    /// # Errors
    /// [`ViewError`] when the database fails or a row cannot be read.
    pub async fn sessions(
        &self,
        log: LogId,
        owner: Option<&UserId>,
        filter: &SessionFilter,
    ) -> Result<Read<SessionPage>, ViewError> {
        let (scope, lag) = self.reach::<Sessions>(log).await?;
        Ok(Read { value: sessions::page(self.store.pool(), scope, owner, filter).await?, lag })
    }
}
