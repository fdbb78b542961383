# make demo   sets up a test host and shows the whole story       make test    every test (root: real LXC and CRIU, too)
# make shell  a shell in the test host                            make check   what needs no root
# make test-vm  a part of the tests in a whole machine, under qemu
# make test-lxc  the tests with LXC 5.0 and 6.0
# make bench  how long everything takes                           make install DESTDIR= PREFIX=/usr/local

PREFIX ?= /usr/local
CARGO ?= cargo
COMMANDS = lxc-checkpoint lxc-restart lxc-cr
# Where the hooks are, and where LXC's configuration files to include are.
LIBEXECDIR = $(PREFIX)/libexec/lxc-cr
CONFIGDIR = $(PREFIX)/share/lxc/config
FILL_IN = sed -e 's|@LIBEXECDIR@|$(LIBEXECDIR)|g' -e 's|@CONFIGDIR@|$(CONFIGDIR)|g'
HOOKS = lxc-cr-action lxc-cr-pre-start lxc-cr-start-host lxc-cr-post-stop lxc-cr-net-up lxc-cr-net-down

.PHONY: build doc lint check test test-vm test-lxc demo bench shell test-host install

build:
	$(CARGO) build --release --bins

# Manuals and completions, in target/doc-out. What they need to be made is not needed by what is installed.
doc:
	$(CARGO) run --quiet --release --example doc -- target/doc-out

# The machine's packages and the Debian root with LXC and CRIU; quick when they are there.
test-host:
	@packaging/test-host.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

check: lint
	$(CARGO) test --lib --bins --test layers --test cli --test doc

# What is tested is what is installed: the release build.
test: test-host lint
	$(CARGO) test --release

# The trials that another kernel can change, in a whole machine: Debian 13's under qemu, some ten minutes.
test-vm:
	packaging/test-vm.sh $(TRIALS)

# With the LXC of Debian 12 and of Debian 13, and forky's CRIU: two minutes each.
test-lxc: test-host
	packaging/test-host.sh --lxc 5
	packaging/test-host.sh --lxc 6
	LXC_CR_TEST_LXC=5 $(CARGO) test --release --test system
	LXC_CR_TEST_LXC=6 $(CARGO) test --release --test system

demo: test-host
	$(CARGO) test --release --test demo

bench: test-host
	$(CARGO) bench --bench system

shell: test-host
	@$(CARGO) test --release --quiet --test system -- --shell

install:
	@for program in $(COMMANDS) $(HOOKS); do test -x target/release/$$program || { echo "run 'make build' first"; exit 1; }; done
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(CONFIGDIR) $(DESTDIR)$(PREFIX)/share/lxc-cr
	install -m 755 $(COMMANDS:%=target/release/%) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(HOOKS:%=target/release/%) $(DESTDIR)$(LIBEXECDIR)
	install -m 644 lxc-config/lxc-cr.toml $(DESTDIR)$(PREFIX)/share/lxc-cr
	@# Shell's redirection keeps no mode: install makes the files, sed fills them.
	for file in recipe.conf recipe-modern.conf; do \
		install -m 644 /dev/null $(DESTDIR)$(PREFIX)/share/lxc-cr/$$file && \
		$(FILL_IN) lxc-config/$$file > $(DESTDIR)$(PREFIX)/share/lxc-cr/$$file || exit 1; done
	install -m 644 /dev/null $(DESTDIR)$(CONFIGDIR)/lxc-cr.conf
	$(FILL_IN) lxc-config/lxc-cr.conf.in > $(DESTDIR)$(CONFIGDIR)/lxc-cr.conf
