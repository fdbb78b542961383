# lxc-cr. `make help` lists the targets; CONTRIBUTING.md says what each needs and how long it takes.

PREFIX ?= /usr/local
CARGO ?= cargo
# The build that is installed: cargo's name for it.
PROFILE ?= release
PROFILED = --profile $(if $(filter debug,$(PROFILE)),dev,$(PROFILE))
COMMANDS = lxc-checkpoint lxc-restart lxc-cr
# Where the hooks are, and where LXC's configuration files to include are.
BINDIR = $(PREFIX)/bin
LIBEXECDIR = $(PREFIX)/libexec/lxc-cr
CONFIGDIR = $(PREFIX)/share/lxc/config
DATADIR = $(PREFIX)/share/lxc-cr
ZSHDIR = $(PREFIX)/share/zsh/site-functions
UNITDIR = $(PREFIX)/lib/systemd/system
FILL_IN = sed -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@LIBEXECDIR@|$(LIBEXECDIR)|g' -e 's|@CONFIGDIR@|$(CONFIGDIR)|g' \
	-e 's|@DATADIR@|$(DATADIR)|g'
MANUALS = lxc-checkpoint.1 lxc-restart.1 lxc-cr.1 lxc-cr.toml.5 lxc-cr-hooks.7
UNITS = lxc-cr-resume.service lxc-cr-suspend.service
# Of each container that has a schedule.
TEMPLATE_UNITS = lxc-checkpoint@.service lxc-checkpoint@.timer
HOOKS = lxc-cr-action lxc-cr-pre-start lxc-cr-start-host lxc-cr-post-stop lxc-cr-net-up lxc-cr-net-down

.PHONY: help build doc lint check test test-vm test-lxc test-workloads test-programs test-races test-hostile test-lazy test-kills test-keys test-fidelity demo faults fuzz soak bench shell test-host install uninstall deb rpm deny \
	lint-packaging package-tools deb-tools rpm-tools test-packages

build:
	$(CARGO) build $(PROFILED) --bins

help:
	@echo 'make build doc      the programs; manuals and completions'
	@echo 'make install        to DESTDIR= PREFIX=/usr/local; make uninstall removes the same files'
	@echo 'make deb, make rpm  packages, in target/release/packages'
	@echo 'make demo           sets up a test host and shows the whole story on a real container'
	@echo 'make shell          a shell in the test host'
	@echo
	@echo 'make check          tests that need no root'
	@echo 'make test           every test, with real LXC and CRIU (root)'
	@echo 'make test-lxc       the system tests with LXC 5.0 and 6.0'
	@echo 'make test-vm        a part of them in whole machines, under qemu'
	@echo 'make test-workloads servers and kernel objects in containers of nine kinds'
	@echo 'make test-programs  servers of Debian 13 as they are packaged'
	@echo 'make test-packages  install, upgrade and removal of the packages'
	@echo 'make faults         every fault at every step, beside LXC'"'"'s own tool'
	@echo 'make fuzz           configuration, record, images, logs, requests (FUZZ_SECONDS=600 each)'
	@echo 'make test-races     local users who try to get in, a minute each (RACE_SECONDS=60)'
	@echo 'make test-hostile   containers that try to get out by a restart (SEEDS=2000)'
	@echo 'make test-keys      every key of lxc.container.conf(5); writes docs/configuration.md'
	@echo 'make test-fidelity  every state of a container; writes docs/fidelity.md'
	@echo 'make test-lazy      lazy restores that something befalls (SEEDS=1000)'
	@echo 'make test-kills     everybody is killed at random moments of all commands (CASES=1000)'
	@echo 'make soak           a hundred checkpoints and restores of one container'
	@echo 'make bench          the table in docs/performance.md'

# Manuals and completions, in target/doc-out. What they need to be made is not needed by what is installed.
doc:
	$(CARGO) run --quiet $(PROFILED) --example doc -- target/doc-out

# The machine's packages and the Debian root with LXC and CRIU; quick when they are there.
test-host:
	@packaging/test-host.sh
	@packaging/test-host.sh --systemd

lint:
	$(CARGO) fmt --check
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --no-deps --document-private-items
	@if command -v cargo-clippy >/dev/null || [ -n "$$CI" ]; then set -ex; \
	$(CARGO) clippy --all-targets -- -D warnings; \
	$(CARGO) clippy $(addprefix --test ,demo faults fidelity hostile keys kills lazy programs soak workloads) -- -D warnings; \
	else echo "lint: LEFT OUT, clippy is missing (Debian 12 has none)"; fi

check: lint
	$(CARGO) test --lib --bins --test layers --test words --test cli --test doc --test prepare

# What is tested is what is installed: the release build. Of the faults, those at CRIU's actions: a minute.
test: test-host lint
	$(CARGO) test --release
	[ "$$(id -u)" != 0 ] || $(CARGO) test --release --test faults -- actions
	@$(MAKE) --no-print-directory lint-packaging deny

# What makes the .deb and looks at what is packaged; and what `make test-packages` needs besides.
LINT_TOOLS = debhelper lintian shellcheck man-db systemd zsh fish
PACKAGE_TOOLS = rpm rpmlint busybox-static

# Scripts, manuals, completions, units, and a .deb of the very programs that were tested: with the examples cargo builds
# them as for the tests, and finds them built. Only root gets the tools.
lint-packaging: doc
	$(CARGO) build $(PROFILED) --bins --examples
	[ "$$(id -u)" != 0 ] || packaging/apt.sh $(LINT_TOOLS)
	packaging/lint.sh $(PROFILE)

# The trials that another kernel can change, in whole machines under qemu: Debian 13 as it is, and forky; some ten minutes.
test-vm:
	packaging/test-vm.sh $(TRIALS)

# With the LXC of Debian 12 and of Debian 13, and forky's CRIU: two minutes each, and one where cgroup v1 is beside
# cgroup2, if this machine has it. At the end, the table of LXC's tools on all of them.
test-lxc: test-host
	packaging/test-host.sh --lxc 5
	packaging/test-host.sh --lxc 6
	LXC_CR_TEST_LXC=5 $(CARGO) test --release --test system
	LXC_CR_TEST_LXC=6 $(CARGO) test --release --test system
	grep -q ' - cgroup cgroup ' /proc/self/mountinfo || exit 0; for lxc in 5 6; do \
		LXC_CR_TEST_LXC=$$lxc LXC_CR_TEST_CGROUP=hybrid $(CARGO) test --release --test system || exit 1; done
	packaging/test-tools.sh

# Some twenty minutes, and two roots of 900 MB more.
test-workloads:
	packaging/test-workloads.sh

# Half an hour on two cores, and two roots of 5 GB more.
test-programs:
	packaging/test-programs.sh --write

demo: test-host
	$(CARGO) test --release --test demo

faults: test-host
	$(CARGO) test --release --test faults

# Each target in turn, from its seeds and from what earlier runs have found (tests/fuzz/corpus). What ends one ends it all; it
# is kept in tests/fuzz/target/findings, and replayed with: cd tests/fuzz; target/fuzz/TARGET target/findings/FILE
FUZZ_SECONDS ?= 600
FUZZ_TARGETS = config wire record images changes criu_log
FIXTURES = ../fixtures/criu-4.2.1
SEEDS_config = ../system/config_cases
SEEDS_record = seeds/record
SEEDS_images = $(FIXTURES)/tree $(FIXTURES)/container $(FIXTURES)/suspended
SEEDS_changes = $(SEEDS_images)
SEEDS_criu_log = $(FIXTURES)/logs

fuzz:
	cd tests/fuzz && $(CARGO) build --release --bins && \
	mkdir -p target/fuzz target/findings $(addprefix corpus/,$(FUZZ_TARGETS)) && \
	for target in $(FUZZ_TARGETS); do cp -f target/*/release/$$target target/fuzz/ || exit 1; done
	cd tests/fuzz $(foreach t,$(FUZZ_TARGETS),&& echo "fuzz: $t" && target/fuzz/$t -max_total_time=$(FUZZ_SECONDS) \
		-timeout=10 -print_final_stats=1 -artifact_prefix=target/findings/ corpus/$t $(SEEDS_$t))

# Attackers change names as fast as they can while root's commands run. Prints how often they won: never.
RACE_SECONDS ?= 60
test-races: test-host
	LXC_CR_RACE_SECONDS=$(RACE_SECONDS) $(CARGO) test --release --test system -- races_

# Containers that are generated to get out by a restart.
test-hostile: SEEDS ?= 2000
test-hostile: test-host
	$(CARGO) test --release --test hostile -- $(SEEDS)

# A pager that is killed, images that are damaged, a disk that stalls: never a wrong byte. A second each.
test-lazy: SEEDS ?= 1000
test-lazy: test-host
	$(CARGO) test --release --test lazy -- $(SEEDS)

# Every key of lxc.container.conf(5): some eight minutes.
test-keys: test-host
	$(CARGO) test --release --test keys
	cp target/system/logs/keys/configuration.md docs/configuration.md

# Every state that lxc-cr inspect reads, before and after a restore: some two minutes.
test-fidelity: test-host
	$(CARGO) test --release --test fidelity
	cp target/system/logs/fidelity/fidelity.md docs/fidelity.md

# Some three seconds a case; each run with the same seed has the same cases.
CASES ?= 1000
test-kills: test-host
	$(CARGO) test --release --test kills -- $(CASES) $(SEED)

soak: test-host
	$(CARGO) test --release --test soak

bench: test-host
	$(CARGO) bench --bench system

shell: test-host
	@$(CARGO) test --release --quiet --test system -- --shell

# What is installed, and where: SOURCE, a colon, and the place below DESTDIR. Uninstalling takes away the same list.
BUILD = target/$(PROFILE)
DOC = target/doc-out
# Two programs; their other names are hard links (src/cli/multicall.rs).
PROGRAMS_IN = $(BUILD)/lxc-cr:$(BINDIR)/lxc-cr $(BUILD)/lxc-cr-hook:$(LIBEXECDIR)/lxc-cr-hook
LINKS_IN = $(foreach p,$(filter-out lxc-cr,$(COMMANDS)),$(BINDIR)/lxc-cr:$(BINDIR)/$p) \
	$(foreach p,$(HOOKS),$(LIBEXECDIR)/lxc-cr-hook:$(LIBEXECDIR)/$p)
# Their paths are filled in.
TEXTS_IN = lxc-config/lxc-cr.toml:$(DATADIR)/lxc-cr.toml lxc-config/recipe.conf:$(DATADIR)/recipe.conf \
	lxc-config/recipe-modern.conf:$(DATADIR)/recipe-modern.conf lxc-config/lxc-cr.conf.in:$(CONFIGDIR)/lxc-cr.conf \
	lxc-config/lxc-cr-systemd.conf.in:$(CONFIGDIR)/lxc-cr-systemd.conf \
	$(foreach f,service.conf manager.conf no-bpf.seccomp,lxc-config/systemd/$f:$(DATADIR)/systemd/$f) \
	$(foreach f,php.ini haproxy.conf vsftpd.conf,lxc-config/programs/$f:$(DATADIR)/programs/$f) \
	$(foreach u,$(UNITS) $(TEMPLATE_UNITS),packaging/systemd/$u:$(UNITDIR)/$u) packaging/systemd/lxc@.conf:$(UNITDIR)/lxc@.service.d/lxc-cr.conf \
	$(foreach p,$(MANUALS),$(DOC)/man/$p:$(PREFIX)/share/man/man$(subst .,,$(suffix $p))/$p) \
	$(foreach p,$(COMMANDS),$(DOC)/bash/$p:$(PREFIX)/share/bash-completion/completions/$p \
		$(DOC)/zsh/_$p:$(ZSHDIR)/_$p \
		$(DOC)/fish/$p.fish:$(PREFIX)/share/fish/vendor_completions.d/$p.fish)

install:
	@for file in $(foreach pair,$(PROGRAMS_IN) $(TEXTS_IN),$(firstword $(subst :, ,$(pair)))); do \
		test -e $$file || { echo "$$file is missing: run 'make build doc' first"; exit 1; }; done
	@for pair in $(PROGRAMS_IN); do install -D -m 755 $${pair%%:*} $(DESTDIR)$${pair#*:} || exit 1; done
	@for pair in $(LINKS_IN); do ln -f $(DESTDIR)$${pair%%:*} $(DESTDIR)$${pair#*:} || exit 1; done
	@# Shell's redirection keeps no mode: install makes the files, sed fills them.
	@for pair in $(TEXTS_IN); do to=$(DESTDIR)$${pair#*:}; \
		install -D -m 644 /dev/null $$to && $(FILL_IN) $${pair%%:*} > $$to || exit 1; done
	@echo "installed below $(DESTDIR)$(PREFIX)"
	@echo "to suspend containers at shutdown: systemctl enable --now $(UNITS)"

# Directories go with their last file, but for those that every system has.
OWN_DIRS = $(LIBEXECDIR) $(DATADIR)/programs $(DATADIR)/systemd $(DATADIR) $(CONFIGDIR) $(UNITDIR)/lxc@.service.d $(UNITDIR) $(PREFIX)/lib/systemd \
	$(addprefix $(PREFIX)/,libexec share/lxc share/man/man1 share/man/man5 \
	share/man/man7 share/bash-completion/completions share/bash-completion share/fish/vendor_completions.d share/fish) \
	$(ZSHDIR) $(PREFIX)/share/zsh

uninstall:
	@for pair in $(PROGRAMS_IN) $(LINKS_IN) $(TEXTS_IN); do rm -f $(DESTDIR)$${pair#*:} || exit 1; done
	@for dir in $(OWN_DIRS); do rmdir $(DESTDIR)$$dir 2>/dev/null || true; done
	@echo "removed from below $(DESTDIR)$(PREFIX)"

# The package, in target/release/packages. Without network and without root. The tools are looked for before anything
# is compiled.
deb: deb-tools build doc
	packaging/deb.sh $(PROFILE)

deb-tools:
	@command -v dh >/dev/null || { echo "make deb needs debhelper: apt install debhelper"; exit 1; }

rpm-tools:
	@command -v rpmbuild >/dev/null || { echo "make rpm needs rpmbuild: apt install rpm (dnf install rpm-build)"; exit 1; }

# Licenses and origins of what is built in; cargo-deny is built first where it is missing: two minutes, in haste.
deny:
	command -v cargo-deny >/dev/null || $(CARGO) install --quiet --debug --locked --no-default-features cargo-deny
	$(CARGO) deny --config packaging/deny.toml check bans licenses sources

package-tools:
	@packaging/apt.sh $(LINT_TOOLS) $(PACKAGE_TOOLS)

rpm: rpm-tools build doc
	packaging/rpm.sh $(PROFILE)

# All that lint-packaging does, and installs and removes the packages in a copy of the test host.
test-packages: test-host package-tools rpm
	packaging/test-packages.sh $(PROFILE)
