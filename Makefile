# make demo: try Daybook, offline and without an API key.   make test: every check.
# make bench: measure it against its budgets; QUICK=1 for a short look, ONLY=runs,append for some rows.
# make chaos: nodes and databases that die, for about an hour. MINUTES=30 of it mixed load; SEED=n repeats a schedule;
#   ONLY=name runs one scenario.
.PHONY: demo test bench chaos

demo:
	@scripts/install-postgres.sh
	cargo build --locked --bin daybook
	@exec "$${CARGO_TARGET_DIR:-target}/debug/daybook" demo

test:
	@scripts/install-build-tools.sh
	@scripts/install-postgres.sh
	@scripts/venv.sh
	@scripts/mcp-servers.sh
	@scripts/test.sh

bench:
	@scripts/install-build-tools.sh
	@scripts/install-postgres.sh
	cargo build --locked --release --package daybook --package daybook-bench --bin daybook --bin daybook-bench
	@exec "$${CARGO_TARGET_DIR:-target}/release/daybook-bench" table $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		--json "$${CARGO_TARGET_DIR:-target}/bench.json"

chaos:
	@scripts/install-build-tools.sh
	@scripts/install-postgres.sh
	cargo build --locked --examples
	cargo test --locked --test chaos -- --include-ignored --nocapture --test-threads=1 $(ONLY)
