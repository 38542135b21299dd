#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Couriers, proxy, door, gate, core and log while all that can go wrong goes wrong at random, and a feed
# that knows what it counted. CHAOS_KILLS (1000) SIGKILLs in CHAOS_WORLDS (2) worlds that run side by
# side, CHAOS_SEED says in which order; among them SIGSTOPs, partitions and lost packets (iptables),
# full disks, clock steps, torn writes and flipped bits in spools, and a proxy that delays,
# reorders, doubles, drops and cuts messages.
#
# At any time nothing shown is above what was counted, or below what was shown. In the end:
#   - every counter and bucket on the aggregator is what the feed counted, before and after a last
#     SIGKILL of the core;
#   - no more frames are missing there than the agents count as given up (bits flipped in the spool, in
#     memory alone when the courier was killed, because the disk was full), and key frames made up for them;
#   - each frame that the proxy ever saw acknowledged is sent once more: all are known as duplicates,
#     and no total changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use POSIX qw(_exit);
use Time::HiRes qw(time sleep);

BEGIN { chdir "$FindBin::Bin/../.." or die }
use World;

my $kills = $ENV{CHAOS_KILLS} // 1000;
my $worlds = $ENV{CHAOS_WORLDS} // 2;
my $seed = $ENV{CHAOS_SEED} // time ^ $$;
my $agents = $ENV{CHAOS_AGENTS} // 3;
my $flips_most = 5; # an aggregator remembers eight incarnations of an agent
my $hours = 20;     # a clock is never further off: frames older than 48 h would be dropped, and counted

# ---- one world ----

my ($w, @undo, %faults, %busy, %flips);

sub later { my ($seconds, $fn) = @_; push @undo, [time + $seconds, $fn] }
sub undo_due {
	my ($now) = @_;
	my @due = grep { $$_[0] <= $now } @undo;
	@undo = grep { $$_[0] > $now } @undo;
	$$_[1]->() for @due;
}
sub one_of { return $_[int rand @_] }
sub any_agent { return int rand $agents }
sub any_daemon { return rand() < 0.35 ? 'aggregator' : 'agent' . any_agent() }

# One fault of a kind at a place at a time; true when it may begin.
sub begin {
	my ($what, $seconds) = @_;
	return 0 if $busy{$what};
	$busy{$what} = 1;
	later($seconds, sub { delete $busy{$what} });
	return 1;
}

sub fault_kill {
	my $daemon = any_daemon();
	my @names = $daemon eq 'aggregator' ? qw(door gate core core supervisor)
		: qw(courier courier courier keeper steward supervisor);
	return $w->kill_one($daemon, one_of(@names));
}

sub fault_stop {
	my $daemon = any_daemon();
	my $pids = $w->processes($daemon);
	my $name = one_of(sort keys %$pids);
	my $seconds = rand() < 0.15 ? 4 + rand 4 : rand 2;
	return 0 unless begin("stop $daemon", $seconds + 0.1);
	my $pid = $pids->{$name};
	kill STOP => $pid or return 0;
	later($seconds, sub {
		kill CONT => $pid if (World::slurp("/proc/$pid/comm") // '') =~ /^t(?:g-|idegate)/;
	});
	return 1;
}

sub fault_packets {
	my $where = one_of(World::DOOR, map { World::PROXY + $_ } 0 .. $agents - 1);
	my ($seconds, $loss) = (0.3 + rand 4, rand() < 0.4 ? 1 : 0.05 + rand 0.4);
	return 0 unless begin("packets $where", $seconds + 0.1);
	my @rule = ('-p', 'tcp', one_of('--dport', '--sport'), $where, '-m', 'statistic', '--mode', 'random',
		'--probability', sprintf('%.2f', $loss), '-j', 'DROP');
	system('iptables', '-w', '-A', 'INPUT', @rule) == 0 or return 0;
	later($seconds, sub { system 'iptables', '-w', '-D', 'INPUT', @rule });
	return 1;
}

sub fault_proxy {
	my $i = any_agent();
	my $seconds = 0.3 + rand 5;
	my ($key, $value) = @{one_of(['delay', 20 + int rand 1500], ['reorder', 20 + int rand 1500],
		['double', 20 + int rand 80], ['drop', 10 + int rand 60], ['hang', 1], ['deaf', 1], ['cut'])};
	return 0 unless begin("proxy $i", $seconds + 0.1);
	if ($key eq 'cut') {
		$w->proxy_say("cut $i");
	} else {
		$w->proxy_say("set $i $key $value");
		later($seconds, sub { $w->proxy_say("set $i $key 0") });
	}
	return 1;
}

sub fault_disk {
	my $what = one_of('data', map { "spool$_" } 0 .. $agents - 1);
	my $seconds = 0.5 + rand 3;
	return 0 unless begin("disk $what", $seconds + 0.1);
	$w->fill_disk($what);
	later($seconds, sub { $w->empty_disk($what) });
	return 1;
}

sub fault_clock {
	my $daemon = any_daemon();
	$w->set_clock($daemon, int(rand(2 * $hours * 3600) - $hours * 3600));
	return 1;
}

# Bytes of a spool change while its courier is dead. Torn: what a courier killed in write() leaves.
sub fault_spool {
	my $i = any_agent();
	my $pids = $w->processes("agent$i");
	my $torn = rand() < 0.5;
	return 0 if !$pids->{courier} || $busy{"stop agent$i"} || !$torn && ($flips{$i} // 0) >= $flips_most;
	kill STOP => $pids->{supervisor} or return 0;
	$w->kill_one("agent$i", 'courier');
	World::wait_for(5, sub { World::state_of($pids->{courier}) =~ /^[ZX]?$/ });
	my @files = sort glob "$w->{dir}/spool$i/spool/*.frames";
	my $file = $torn ? $files[-1] : one_of(@files);
	if ($file && open my $f, '+<', $file) {
		my $size = -s $f;
		if ($torn) {
			seek $f, 0, 2;
			print {$f} pack('L<L<', 0x43455246, 200), map { chr int rand 256 } 1 .. 1 + int rand 150;
		} elsif ($size) {
			my $at = int rand $size;
			seek $f, $at, 0;
			read $f, my $byte, 1;
			seek $f, $at, 0;
			print {$f} $byte ^ chr(1 << int rand 8);
			$flips{$i}++;
		}
		close $f;
	}
	kill CONT => $pids->{supervisor};
	$faults{$torn ? 'torn' : 'flipped'}++ if $file;
	return 1;
}

my @menu = ((\&fault_kill) x 12, (\&fault_stop) x 2, (\&fault_packets) x 2, (\&fault_proxy) x 3, \&fault_disk,
	\&fault_clock, \&fault_spool);
my %names = (\&fault_stop, 'stops', \&fault_packets, 'packets', \&fault_proxy, 'proxy', \&fault_disk, 'disk',
	\&fault_clock, 'clock');

sub killed { my $n = 0; $n += $_ for values %{$w->{kills}}; return $n }

sub storm {
	my ($most, $deadline) = @_;
	my ($next, $look, %seen) = (time, time);
	while (killed() < $most && time < $deadline) {
		my $now = time;
		undo_due($now);
		$w->look_after;
		if ($now >= $next) {
			my $fault = one_of(@menu);
			my $did = $fault->();
			$faults{$names{$fault}}++ if $did && $names{$fault};
			$next = $now + rand 0.2;
		}
		if ($now >= $look) {
			my $fleet = $w->fleet;
			$faults{looks}++ if $fleet;
			my $bad = $fleet && World::impossible($w->truth, $fleet, \%seen);
			return $bad if $bad;
			$look = time + 0.25;
		}
		sleep 0.01;
	}
	return killed() < $most ? "only " . killed() . " of $most kills in time" : undef;
}

# All is well again; the rest must follow by itself.
sub calm {
	undo_due(time + 1e9);
	for my $daemon (keys %{$w->{supervisors}}) {
		kill CONT => $_ for values %{$w->processes($daemon)};
	}
	$w->look_after;
	return $w->stop_feed ? undef : 'the feed failed';
}

sub settled {
	my ($seconds, $ret_differences) = @_;
	my $truth = $w->truth;
	return World::wait_for($seconds, sub {
		$w->look_after;
		my $fleet = $w->fleet or return 0;
		@$ret_differences = World::differences($truth, $fleet);
		return !@$ret_differences;
	});
}

# Frames that name series whose definition was lost are tried for some rounds before they are given up.
sub missing_is_counted {
	my ($results) = @_;
	my @bad;
	World::wait_for(60, sub {
		my $answer = $w->{http}->get('http://127.0.0.1:' . World::API . '/api/v1/agents');
		my %missing = $answer->{content} =~ /"id":"chaos-(\d+)".*?"missing":(\d+)/gs;
		@$results{qw(missing dropped)} = (0, 0);
		@bad = ();
		for my $i (0 .. $agents - 1) {
			my $dropped = $w->dropped($i);
			my $sum = 0;
			$sum += $_ for values %{$dropped // {}};
			$results->{missing} += $missing{$i} // 0;
			$results->{dropped} += $sum;
			push @bad, "chaos-$i: " . ($missing{$i} // 'all') . ' frames are missing, the agent counted '
				. join ' ', map { "$_=$dropped->{$_}" } sort keys %{$dropped // {}}
				if !$dropped || ($missing{$i} // 1e9) > $sum;
		}
		return !@bad;
	});
	return @bad;
}

sub some { return @_ > 5 ? (@_[0 .. 4], '... ' . (@_ - 5) . ' more') : @_ }
sub duplicates { return $_[0]->{own}{'tidegate_aggregator_frames_total,duplicate'} // 0 }
sub applied { return $_[0]->{own}{'tidegate_aggregator_frames_total,applied'} // 0 }

sub one_world {
	my ($number, $most) = @_;
	my $began = time;
	my (@bad, @differences, %results);
	srand $seed + $number;
	# Every other world folds its log all the time.
	$w = World->new(agents => $agents, $number % 2 ? (log_bytes => '1MiB') : ());
	my $ok = eval {
		$w->start($seed + $number);
		push @bad, grep { defined } storm($most, time + 30 + $most * 1.5);
		push @bad, grep { defined } calm();
		push @bad, 'totals are not what was counted' unless settled(90, \@differences);
		push @bad, some(@differences);
		push @bad, missing_is_counted(\%results);
		# Whoever could still send ends, so that all that comes is the replay.
		for my $daemon (grep { /^agent/ } sort keys %{$w->{supervisors}}) {
			push @bad, "$daemon did not end" unless $w->stop_daemon($daemon, 20);
		}
		my $before = $w->fleet // die "no /metrics\n";
		my $replayed = $w->proxy_ask('replay');
		my $after = $w->fleet // die "no /metrics\n";
		push @bad, "of $replayed->{frames} acknowledged frames only $replayed->{acknowledged} are known: "
			. "missing $replayed->{missing}, refused $replayed->{refused}, unanswered $replayed->{unanswered}"
			if $replayed->{frames} != $replayed->{acknowledged} || !$replayed->{frames};
		push @bad, 'a frame that was acknowledged before was applied now: '
			. (applied($after) - applied($before)) if applied($after) != applied($before);
		push @bad, 'not every replayed frame was a duplicate'
			if duplicates($after) - duplicates($before) != $replayed->{frames};
		push @bad, 'the replay changed totals' unless settled(1, \@differences);
		$w->kill_one('aggregator', 'core');
		push @bad, 'the log holds other totals' unless settled(30, \@differences);
		push @bad, some(@differences);
		%results = (%results, %faults, %{$w->proxy_ask('stats')}, replayed => $replayed->{frames},
			known => $replayed->{acknowledged});
		push @bad, "$results{reused} sequences stood for two frames" if $results{reused};
		push @bad, "$results{session_twice} sessions stood for two agents" if $results{session_twice};
		1;
	};
	push @bad, "died: $@" unless $ok;
	$results{"killed_$_"} = $w->{kills}{$_} for keys %{$w->{kills}};
	$results{kills} = killed();
	$results{seconds} = int(time - $began);
	my $truth = $w->truth;
	$results{counted} += $_ for values %{($truth // {})->{counters} // {}};
	my $keep = @bad && $ENV{CHAOS_KEEP} ? "$ENV{CHAOS_KEEP}/world$number" : undef;
	for my $name (@bad ? ('aggregator', map { "agent$_" } 0 .. $agents - 1) : ()) {
		my @lines = split /\n/, World::slurp("$w->{dir}/$name.log") // '';
		push @bad, "--- $name", @lines[(@lines > 12 ? @lines - 12 : 0) .. $#lines];
	}
	$w->end($keep);
	print "bad $_\n" for @bad;
	print "$_=$results{$_}\n" for sort keys %results;
	$| = 1;
	_exit(0);
}

# ---- all of them ----

my $why = World::missing();
if ($why) {
	print "1..0 # SKIP $why\n";
	exit 0;
}
if (@ARGV) {
	World::enter();
	$| = 1;
	one_world(@ARGV);
}
$| = 1;
printf "# seed %u\n", $seed;
$ENV{CHAOS_SEED} = $seed;
my @out = map {
	my $share = int($kills / $worlds) + ($_ < $kills % $worlds);
	open my $from, '-|', $^X, $0, $_, $share or die "fork: $!\n";
	$from;
} 0 .. $worlds - 1;
my (%sum, @bad, $seconds);
for my $number (0 .. $#out) {
	my $lines = 0;
	while (readline $out[$number]) {
		chomp;
		push @bad, "world $number: $1" if /^bad (.*)/;
		next unless /^(\w+)=(\d+)$/;
		$sum{$1} += $2 if $1 ne 'seconds';
		$seconds = $2 if $1 eq 'seconds' && $2 > ($seconds // 0);
		$lines++;
	}
	push @bad, "world $number said nothing" unless $lines;
}
$sum{$_} //= 0 for qw(kills stops packets proxy disk clock torn flipped looks counted acknowledged replayed
	missing known partial dropped delayed doubled cuts);
printf "# %d kills in %d worlds of %d agents in %d s: %s\n", $sum{kills}, $worlds, $agents, $seconds // 0,
	join ', ', map { /^killed_(.*)/ ? "$sum{$_} of a $1" : () } sort keys %sum;
print "# besides $sum{stops} SIGSTOPs, $sum{packets} partitions and lossy links, $sum{disk} full disks, "
	. "$sum{clock} clock steps, $sum{torn} torn writes, $sum{flipped} flipped bits, $sum{proxy} times a proxy "
	. "in the way ($sum{delayed} messages late or out of order, $sum{doubled} twice, "
	. ($sum{dropped} // 0) . " frames given up and counted, $sum{cuts} connections cut)\n";
print "# $sum{counted} counted, $sum{looks} looks at the totals; $sum{acknowledged} frames seen acknowledged, "
	. "$sum{replayed} of them sent again, $sum{known} of these known; $sum{missing} frames missing, "
	. "$sum{partial} replies that do not say which\n";
print "not " if @bad;
print "ok 1 - $sum{kills} kills, no acknowledged frame lost, none counted twice\n1..1\n";
print "# $_\n" for @bad;
exit(@bad ? 1 : 0);
