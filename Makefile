# make demo: try Daybook, offline and without an API key.   make test: every check.
.PHONY: demo test

demo:
	@scripts/install-postgres.sh
	cargo build --locked --bin daybook
	@exec "$${CARGO_TARGET_DIR:-target}/debug/daybook" demo

test:
	@scripts/install-build-tools.sh
	@scripts/install-postgres.sh
	@scripts/venv.sh
	@scripts/test.sh
