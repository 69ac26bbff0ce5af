//! The aggregates as `cqrs-es` knows them: thin adapters over the pure `decide` and `evolve`, for its test framework.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;

use crate::approval::{ApprovalCommand, ApprovalError, ApprovalEvent, ApprovalState};
use crate::component::{ComponentError, ComponentEvent, ComponentState, Configure};
use crate::run::{RunCommand, RunError, RunEvent, RunState};
use crate::session::{AdmitRun, SessionError, SessionEvent, SessionState};

macro_rules! aggregate {
    ($state:ty, $name:literal, $command:ty, $event:ty, $error:ty, |$s:ident, $c:ident| $decide:expr) => {
        impl Aggregate for $state {
            const TYPE: &'static str = $name;
            type Command = $command;
            type Event = $event;
            type Error = $error;
            type Services = ();

            async fn handle(
                &mut self,
                $c: Self::Command,
                (): &Self::Services,
                sink: &EventSink<Self>,
            ) -> Result<(), Self::Error> {
                let $s = &*self;
                let events: Vec<$event> = $decide?;
                for event in events {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                self.evolve(&event);
            }
        }
    };
}

aggregate!(RunState, "run", RunCommand, RunEvent, RunError, |state, command| state.decide(command));
aggregate!(SessionState, "session", AdmitRun, SessionEvent, SessionError, |state, command| {
    state.admit(command).map(|(_, events)| events)
});
aggregate!(ComponentState, "component", Configure, ComponentEvent, ComponentError, |state, command| {
    state.decide(command)
});
aggregate!(ApprovalState, "approval", ApprovalCommand, ApprovalEvent, ApprovalError, |state, command| {
    state.decide(command)
});
