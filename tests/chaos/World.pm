# SPDX-License-Identifier: Apache-2.0
# A world of its own for the bus: an aggregator, agents without probes behind a fault proxy, what they
# count, and disks and clocks that can be broken. It lives in a network and a mount namespace
# (enter()), so that worlds run side by side and nothing of the machine is touched; its processes are
# signalled by their ids.
package World;

use strict;
use warnings;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Handle;
use POSIX qw(WNOHANG _exit strftime);
use Time::HiRes qw(time sleep);

use Proxy;

use constant {DOOR => 9466, API => 9464, PROXY => 20000, AGENT_HTTP => 21000};

our $top = ($INC{'World.pm'} =~ m{^(.*)/tests/chaos/} ? $1 : '.');
our $build = $ENV{BUILD} || "$top/build";

# ---- conditions ----

sub wait_for {
	my ($seconds, $condition) = @_;
	my $deadline = time + $seconds;
	until ($condition->()) {
		return 0 if time > $deadline;
		sleep 0.02;
	}
	return 1;
}

sub slurp { my ($path) = @_; open my $in, '<', $path or return; local $/; return scalar <$in> }
sub spew { my ($path, $text) = @_; open my $out, '>', $path or die "$path: $!\n"; print {$out} $text }

# ---- namespaces ----

# Why no world can be made here; undef when it can.
sub missing {
	return "$build/tests/chaos/feed is not built" unless -x "$build/tests/chaos/feed";
	return 'a world of its own needs root' if $> != 0;
	for my $tool (qw(unshare ip iptables setpriv)) {
		return "$tool is missing" unless grep { -x "$_/$tool" } qw(/usr/sbin /sbin /usr/bin /bin);
	}
	return 'no network namespace with iptables can be made here'
		if system "unshare -n -m sh -c 'ip link set lo up && iptables -A INPUT -i lo -m statistic"
		. " --mode random --probability 0.5 -j ACCEPT' >/dev/null 2>&1";
	return;
}

# Runs the rest of the program in namespaces of its own.
sub enter {
	return if $ENV{CHAOS_INSIDE};
	$ENV{CHAOS_INSIDE} = 1;
	exec 'unshare', '-n', '-m', $^X, '-I', "$top/tests/chaos", $0, @ARGV or die "unshare: $!\n";
}

# ---- what runs ----

# new(agents => N, tick => '1s', log_bytes => '1MiB', spool_bytes => '4MiB', spool_mb => N, log_mb => N,
#     rate => N): rate: all clocks of the daemons, timeouts too, run so many times as fast (libfaketime).
sub new {
	my ($class, %o) = @_;
	my $self = bless {
		agents => $o{agents} // 3, tick => $o{tick} // '100ms', options => \%o, kills => {},
		supervisors => {}, dir => tempdir('tidegate-chaos-XXXXXX', DIR => '/tmp'), log => [],
		http => HTTP::Tiny->new(timeout => 5), clocks => {}, began => time,
	}, $class;
	my $dir = $self->{dir};
	chmod 0711, $dir;
	system('ip', 'link', 'set', 'lo', 'up') == 0 or die "no loopback\n";
	mkdir "$dir/$_" for qw(run data hooks clock);
	chmod 0755, "$dir/$_" for qw(run data hooks clock);
	$self->mount("$dir/run", 256);
	$self->mount('/dev/shm', 64); # libfaketime leaves things there
	$self->mount("$dir/data", $o{log_mb} // 96);
	$self->{faketime} = (glob '/usr/lib*/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1')[0];
	for my $i (0 .. $self->{agents} - 1) {
		mkdir "$dir/spool$i";
		$self->mount("$dir/spool$i", $o{spool_mb} // 8);
		$self->write_agent($i);
	}
	$self->write_aggregator;
	return $self;
}

sub mount {
	my ($self, $path, $mb) = @_;
	system('mount', '-t', 'tmpfs', '-o', "size=${mb}m,mode=0755", 'chaos', $path) == 0
		or die "no tmpfs at $path\n";
}

sub write_agent {
	my ($self, $i) = @_;
	my ($dir, $port, $http) = ($self->{dir}, PROXY + $i, AGENT_HTTP + $i);
	spew("$dir/agent$i.yaml", <<YAML);
runtime_dir: $dir/run/agent$i
agent:
  id: chaos-$i
  tick: $self->{tick}
gateways:
  match: ["none=tidegate-nobody"]
probe:
  bpffs: ""
uplink:
  aggregators: ["tcp://127.0.0.1:$port"]
  backoff: 500ms
spool:
  dir: $dir/spool$i/spool
  bytes: @{[$self->{options}{spool_bytes} // '4MiB']}
http:
  address: 127.0.0.1:$http
drain:
  on_sigterm: never
  lua_dir: $dir/hooks
  hooks_dir: $dir/hooks
YAML
}

sub write_aggregator {
	my ($self) = @_;
	my $dir = $self->{dir};
	spew("$dir/aggregator.yaml", <<YAML);
runtime_dir: $dir/run/aggregator
door:
  address: tcp://127.0.0.1:@{[DOOR]}
fleet:
  data_dir: $dir/data/log
  log_bytes: @{[$self->{options}{log_bytes} // '256MiB']}
api:
  address: 127.0.0.1:@{[API]}
YAML
}

# A program, its output in a log, its clock that of a file.
sub spawn {
	my ($self, $name, $clock, @command) = @_;
	my $pid = fork // die "fork: $!\n";
	return $pid if $pid;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', "$self->{dir}/$name.log";
	open STDERR, '>&', \*STDOUT;
	if (defined $clock && $self->{options}{rate}) {
		$ENV{LD_PRELOAD} = $self->{faketime};
		$ENV{FAKETIME_TIMESTAMP_FILE} = $clock;
		$ENV{FAKETIME_CACHE_DURATION} = 1;
	} elsif (defined $clock) {
		$ENV{LD_PRELOAD} = "$build/tests/chaos/clock.so";
		$ENV{CHAOS_CLOCK} = $clock;
	}
	exec @command or _exit(127);
}

# Seconds since the Unix epoch on the clocks of the daemons; they began to be fast at new().
sub fast_time { my ($self) = @_; return $self->{began} + (time - $self->{began}) * $self->{options}{rate} }

sub start_clock {
	my ($self, $daemon) = @_;
	my $rate = $self->{options}{rate};
	return $self->set_clock($daemon, $self->{clocks}{$daemon} // 0) unless $rate;
	spew("$self->{dir}/clock/$daemon", strftime('@%Y-%m-%d %H:%M:%S', localtime $self->fast_time) . " x$rate\n");
}

# The keeper of a chaos agent has nothing to probe: without the right to load programs it starts at once.
sub start_agent {
	my ($self, $i) = @_;
	$self->start_clock("agent$i");
	$self->{supervisors}{"agent$i"} = $self->spawn("agent$i", "$self->{dir}/clock/agent$i", 'setpriv',
		'--bounding-set=-bpf,-perfmon,-sys_admin', "$build/tidegate", 'agent', '--sidecar', '--config',
		"$self->{dir}/agent$i.yaml");
}

sub start_aggregator {
	my ($self) = @_;
	$self->start_clock('aggregator');
	$self->{supervisors}{aggregator} = $self->spawn('aggregator', "$self->{dir}/clock/aggregator",
		"$build/tidegate", 'aggregator', '--config', "$self->{dir}/aggregator.yaml");
}

sub start_proxy {
	my ($self, $seed) = @_;
	pipe my $from_us, my $to_proxy or die;
	pipe my $from_proxy, my $to_us or die;
	my $pid = fork // die "fork: $!\n";
	if (!$pid) {
		close $to_proxy;
		close $from_proxy;
		eval { Proxy::run($from_us, $to_us, '127.0.0.1:' . DOOR, $seed, map { PROXY + $_ } 0 .. $self->{agents} - 1) };
		warn $@;
		_exit(1);
	}
	close $from_us;
	close $to_us;
	$to_proxy->autoflush(1);
	@$self{qw(proxy proxy_in proxy_out)} = ($pid, $to_proxy, $from_proxy);
}

sub start_feed {
	my ($self) = @_;
	$self->{feed} = $self->spawn('feed', undef, "$build/tests/chaos/feed", "$self->{dir}/truth",
		map { "$self->{dir}/run/agent$_" } 0 .. $self->{agents} - 1);
	wait_for(10, sub { $self->truth }) or die "the feed does not start\n";
}

# Ends it and waits: what truth() says now is what was counted.
sub stop_feed {
	my ($self) = @_;
	my $pid = delete $self->{feed} or return 1;
	kill TERM => $pid;
	waitpid $pid, 0;
	return $? == 0;
}

sub proxy_say { my ($self, $line) = @_; print {$self->{proxy_in}} "$line\n" }
sub proxy_ask {
	my ($self, $line) = @_;
	$self->proxy_say($line);
	my $answer = readline $self->{proxy_out};
	return {map { split /=/, $_, 2 } split ' ', $answer // ''};
}

sub ready { my ($self) = @_; return $self->{http}->get('http://127.0.0.1:' . API . '/readyz')->{success} }

sub start {
	my ($self, $seed) = @_;
	$self->start_aggregator;
	wait_for(20, sub { $self->ready }) or die "the aggregator is not ready\n";
	$self->start_proxy($seed);
	$self->start_agent($_) for 0 .. $self->{agents} - 1;
	for my $i (0 .. $self->{agents} - 1) {
		wait_for(20, sub { -e "$self->{dir}/run/agent$i/app.seg" }) or die "agent $i does not start\n";
	}
	$self->start_feed;
}

# ---- processes ----

sub processes {
	my ($self, $daemon) = @_;
	my $supervisor = $self->{supervisors}{$daemon} or return {};
	my %found = (supervisor => $supervisor);
	for my $pid (split ' ', slurp("/proc/$supervisor/task/$supervisor/children") // '') {
		my $comm = slurp("/proc/$pid/comm") // next;
		$found{$1} = $pid if $comm =~ /^tg-(\w+)/;
	}
	return \%found;
}

sub state_of { my ($pid) = @_; return (slurp("/proc/$pid/stat") // '') =~ /^.*\) (\w)/ ? $1 : '' }

# SIGKILLs one process that lives; true when it did.
sub kill_one {
	my ($self, $daemon, $name) = @_;
	my $pid = $self->processes($daemon)->{$name} or return 0;
	return 0 if state_of($pid) =~ /^[ZX]?$/ || !kill KILL => $pid;
	$self->{kills}{$name}++;
	return 1;
}

# What a service manager does: daemons whose supervisor was killed are started again, when the last
# process of the old one has let go of the lock.
sub look_after {
	my ($self) = @_;
	for my $daemon (keys %{$self->{supervisors}}) {
		next if waitpid($self->{supervisors}{$daemon}, WNOHANG) <= 0;
		$daemon =~ /^agent(\d+)/ ? $self->start_agent($1) : $self->start_aggregator;
	}
}

sub stop_daemon {
	my ($self, $daemon, $seconds) = @_;
	my $pid = delete $self->{supervisors}{$daemon} or return 1;
	kill TERM => $pid;
	return 1 if wait_for($seconds // 15, sub { waitpid($pid, WNOHANG) != 0 });
	kill KILL => $pid;
	waitpid $pid, 0;
	return 0;
}

# ---- disks and clocks ----

sub fill_disk {
	my ($self, $what) = @_;
	open my $out, '>', "$self->{dir}/$what/filler" or return;
	my $chunk = "\0" x 65536;
	1 while syswrite $out, $chunk;
	$chunk = "\0" x 256;
	1 while syswrite $out, $chunk;
}
sub empty_disk { my ($self, $what) = @_; unlink "$self->{dir}/$what/filler" }

# Off by so many seconds from now on; in place, for those who have the file mapped.
sub set_clock {
	my ($self, $daemon, $seconds) = @_;
	$self->{clocks}{$daemon} = $seconds;
	my $path = "$self->{dir}/clock/$daemon";
	open my $out, -e $path ? '+<' : '>', $path or die "$path: $!\n";
	syswrite $out, pack 'q<', $seconds;
}

# ---- numbers ----

# The feed's word: {counters => {"WHO,N" => n}, gauges => {WHO => n}, values => {"WHO,N" => {ns => n}}}
sub truth {
	my ($self) = @_;
	my @n = unpack 'Q<*', slurp("$self->{dir}/truth") // '';
	return unless @n > 4 && $n[0];
	my ($agents, $counters, $histograms, $values) = splice @n, 0, 4;
	my @ns = splice @n, 0, $values;
	my (%counters, %gauges, %values);
	for my $who (0 .. $agents - 1) {
		$counters{"$who,$_"} = shift @n for 0 .. $counters - 1;
		$gauges{$who} = shift @n;
		for my $h (0 .. $histograms - 1) {
			$values{"$who,$h"}{$_} = shift @n for @ns;
		}
	}
	return {counters => \%counters, gauges => \%gauges, values => \%values};
}

# The aggregator's word, of the same: histograms as {le => n}; and own, its rows about itself.
sub fleet {
	my ($self) = @_;
	my $answer = $self->{http}->get('http://127.0.0.1:' . API . '/metrics');
	return unless $answer->{success};
	my %f = (counters => {}, gauges => {}, buckets => {}, own => {});
	for (split /\n/, $answer->{content}) {
		next unless /^(\w+)(?:\{(.*)\})? (\S+)$/;
		my ($name, $value) = ($1, $3);
		my %l = ($2 // '') =~ /(\w+)="([^"]*)"/g;
		if ($name eq 'chaos_total') {
			$f{counters}{"$l{who},$l{n}"} = $value;
		} elsif ($name eq 'chaos_gauge') {
			$f{gauges}{$l{who}} = $value;
		} elsif ($name eq 'chaos_seconds_bucket') {
			$f{buckets}{"$l{who},$l{n}"}{$l{le}} = $value;
		} elsif (/^tidegate_(?:aggregator|frame_gaps)/) {
			$f{own}{join ',', $name, map { $l{$_} } sort keys %l} = $value;
		}
	}
	return \%f;
}

# What of one agent tells the other: lines, none when they are equal.
sub differences {
	my ($truth, $fleet) = @_;
	my @out;
	for my $key (sort keys %{$truth->{counters}}) {
		my ($want, $got) = ($truth->{counters}{$key}, $fleet->{counters}{$key});
		push @out, "chaos_total $key: counted $want, shown " . ($got // 'not')
			unless defined $got ? $got == $want : $want == 0;
	}
	for my $key (sort keys %{$truth->{values}}) {
		my $values = $truth->{values}{$key};
		my $buckets = $fleet->{buckets}{$key};
		my $all = 0;
		$all += $_ for values %$values;
		push @out, "chaos_seconds $key: not shown" if $all && !$buckets;
		for my $le (sort keys %{$buckets // {}}) {
			my $want = 0;
			for my $ns (keys %$values) {
				$want += $values->{$ns} if $le eq '+Inf' || $ns / 1e9 <= $le;
			}
			push @out, "chaos_seconds $key le=$le: counted $want, shown $buckets->{$le}"
				if $want != $buckets->{$le};
		}
	}
	return @out;
}

# One series that is above the truth, or below what was shown before (kept in $seen).
sub impossible {
	my ($truth, $fleet, $seen) = @_;
	for my $key (keys %{$fleet->{counters}}) {
		my $got = $fleet->{counters}{$key};
		return "chaos_total $key: $got shown, only $truth->{counters}{$key} counted"
			if $got > $truth->{counters}{$key};
		return "chaos_total $key: $got shown after $seen->{$key}" if $got < ($seen->{$key} // 0);
		$seen->{$key} = $got;
	}
	for my $key (keys %{$fleet->{buckets}}) {
		my ($got, $want) = ($fleet->{buckets}{$key}{'+Inf'}, 0);
		$want += $_ for values %{$truth->{values}{$key}};
		return "chaos_seconds $key: $got shown, only $want counted" if $got > $want;
		return "chaos_seconds $key: $got shown after $seen->{\"h$key\"}" if $got < ($seen->{"h$key"} // 0);
		$seen->{"h$key"} = $got;
	}
	return;
}

# The agent's own word: sum of its spool_dropped_total by reason.
sub dropped {
	my ($self, $i) = @_;
	my $answer = $self->{http}->get('http://127.0.0.1:' . (AGENT_HTTP + $i) . '/metrics');
	return unless $answer->{success};
	return {$answer->{content} =~ /^tidegate_spool_dropped_total\{reason="(\w+)"\} (\d+)/mg};
}

# ---- the end ----

sub end {
	my ($self, $keep) = @_;
	kill CONT => values %{$self->processes($_)} for keys %{$self->{supervisors}};
	kill KILL => $self->{feed} if $self->{feed};
	$self->stop_daemon($_) for sort keys %{$self->{supervisors}};
	$self->proxy_say('quit') if $self->{proxy};
	waitpid $self->{proxy}, 0 if $self->{proxy};
	waitpid $self->{feed}, 0 if $self->{feed};
	if ($keep) {
		system 'cp', '-r', $self->{dir}, $keep;
	}
	system 'umount', '-l', $_ for map { "$self->{dir}/$_" } qw(run data), map { "spool$_" } 0 .. $self->{agents} - 1;
	system 'rm', '-rf', $self->{dir};
}

1;
