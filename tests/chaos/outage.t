#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The aggregator is away for CHAOS_HOURS (4) hours of clocks that run CHAOS_RATE (120) times as fast, all
# timeouts of the daemons too. In the middle one agent is told to end and started again, another is
# killed with all its processes. Then the aggregator comes back: every frame of every tick arrives, once,
# nothing is given up, and the totals are what was counted.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Time::HiRes qw(time sleep);

BEGIN { chdir "$FindBin::Bin/../.." or die }
use World;

my $hours = $ENV{CHAOS_HOURS} // 4;
my $rate = $ENV{CHAOS_RATE} // 120;
my $agents = 2;
my ($n, $failed) = (0, 0);

sub ok {
	my ($ok, $name) = @_;
	$failed++ unless $ok;
	print $ok ? 'ok ' : 'not ok ', ++$n, " - $name\n";
	return $ok;
}

my $why = World::missing();
$why //= 'faketime is not installed' unless glob '/usr/lib*/*/faketime/libfaketime.so.1 /usr/lib*/faketime/libfaketime.so.1';
if ($why) {
	print "1..0 # SKIP $why\n";
	exit 0;
}
World::enter();
$| = 1;

my $w = World->new(agents => $agents, tick => '1s', rate => $rate, spool_mb => 64, spool_bytes => '48MiB');

# What the aggregator knows of the agents: {AGENT => {sequence, missing, frames, incarnations}}.
sub known {
	my $answer = $w->{http}->get('http://127.0.0.1:' . World::API . '/api/v1/agents');
	my %known;
	for my $part (split /(?="id":)/, $answer->{success} ? $answer->{content} : '') {
		next unless $part =~ /^"id":"chaos-(\d+)"/;
		my $i = $1;
		($known{$i}{$_}) = $part =~ /"$_":(\d+)/ for qw(sequence missing frames gaps incarnations);
	}
	return \%known;
}
sub known_all { my $k = known(); return keys %$k == $agents && !grep { !$_->{sequence} } values %$k }
sub built { # frames of an agent, all its couriers together
	my ($i) = @_;
	my $answer = $w->{http}->get('http://127.0.0.1:' . (World::AGENT_HTTP + $i) . '/metrics');
	return $answer->{content} =~ /^tidegate_frames_total\{state="built"\} (\d+)/m ? $1 : undef;
}
sub spooled {
	my ($i) = @_;
	my $bytes = 0;
	$bytes += -s $_ for glob "$w->{dir}/spool$i/spool/*.frames";
	return $bytes;
}

$w->start(1);
ok(World::wait_for(30, \&known_all), 'all agents are known');
my $before = known();
my $began = $w->fast_time;
kill KILL => values %{$w->processes('aggregator')};
waitpid delete $w->{supervisors}{aggregator}, 0;

my $half = $began + $hours * 1800;
sleep 0.2 while $w->fast_time < $half;
my $stopped = $w->fast_time;
ok($w->stop_daemon('agent0', 30), 'in the middle one agent ends and begins again');
$w->start_agent(0);
kill KILL => values %{$w->processes('agent1')};
waitpid delete $w->{supervisors}{agent1}, 0;
$w->start_agent(1);
World::wait_for(30, sub { !grep { !defined built($_) } 0 .. $agents - 1 });
my $restarted = $w->fast_time - $stopped;
sleep 0.2 while $w->fast_time < $half + $hours * 1800;
my @built = map { built($_) } 0 .. $agents - 1;
my @spooled = map { spooled($_) } 0 .. $agents - 1;
ok(!(grep { !defined } @built), 'both agents live');
printf "# away for %.2f h of their time; frames so far: %s; in the spools: %s bytes\n",
	($w->fast_time - $began) / 3600, join(', ', map { $_ // '-' } @built), join(', ', @spooled);

$w->start_aggregator;
my $back = time;
ok(World::wait_for(30, sub { $w->ready }), 'the aggregator is back');
ok($w->stop_feed, 'the feed ends');
my @differences = ('never asked');
my $truth = $w->truth;
ok(World::wait_for(120, sub {
	$w->look_after;
	my $fleet = $w->fleet or return 0;
	@differences = World::differences($truth, $fleet);
	return !@differences;
}), 'all totals are what was counted');
print "# $_\n" for @differences;
ok(World::wait_for(120, sub {
	my $k = known();
	return !grep { $k->{$_}{missing} || $k->{$_}{frames} < $built[$_] } 0 .. $agents - 1;
}), 'every frame has arrived, none is missing');
my $after = known();
printf "# chaos-%d: sequence %s, frames %s, missing %s, before the outage %s\n", $_,
	map({ $_ // '-' } @{$after->{$_}}{qw(sequence frames missing)}), $before->{$_}{sequence} for 0 .. $agents - 1;
printf "# the backlog was there %.1f s (real time) after the aggregator\n", time - $back;

# History: what each agent had counted in each minute of the outage. None is missing but those in which
# the agent itself was away, and no total falls. The aggregator's own sum would: who is gone leaves it.
my $began_s = int($began / 60 + 2) * 60;
my $ended_s = int(($half + $hours * 1800) / 60) * 60;
my $wanted = ($ended_s - $began_s) / 60 + 1;
my $away = int($restarted / 60) + 2;
my %values;
World::wait_for(60, sub {
	my $answer = $w->{http}->get('http://127.0.0.1:' . World::API
		. "/api/v1/query_range?query=sum%20by%20(who)%20(chaos_total)&start=$began_s&end=$ended_s&step=60");
	for my $part (split /(?="metric":)/, $answer->{content}) {
		my ($who) = $part =~ /"who":"(\d+)"/ or next;
		$values{$who} = [$part =~ /\[\d+(?:\.\d+)?,"([^"]*)"\]/g];
	}
	return keys %values == $agents && !grep { @$_ < $wanted - $away } values %values;
});
for my $i (0 .. $agents - 1) {
	my @v = @{$values{$i} // []};
	my $falls = grep { $v[$_] < $v[$_ - 1] } 1 .. $#v;
	printf "# history of chaos-%d: %d of %d minutes (away for at most %d), from %s to %s\n", $i, scalar @v, $wanted,
		$away, $v[0] // '-', $v[-1] // '-';
	ok(@v >= $wanted - $away && !$falls && $v[0] < $v[-1], 'it has each minute of the outage, and no total falls');
}
# A tick that a busy machine missed is no frame: how many there are is said, not asserted tightly.
ok(!(grep { $after->{$_}{frames} < $hours * 3600 / 4 } 0 .. $agents - 1), 'there were ticks all the time');
ok(!(grep { $after->{$_}{incarnations} != 1 } 0 .. $agents - 1), 'one incarnation each');
for my $i (0 .. $agents - 1) {
	my $dropped = {};
	World::wait_for(10, sub { $dropped = $w->dropped($i) });
	my $sum = 0;
	$sum += $_ for values %$dropped;
	ok(keys %$dropped && !$sum, "chaos-$i gave nothing up");
}
for my $i (0 .. $agents - 1) {
	$w->stop_daemon("agent$i", 30);
}
my $fleet_before = $w->fleet;
my $replayed = $w->proxy_ask('replay');
my $fleet_after = $w->fleet;
ok($replayed->{frames} && $replayed->{frames} == $replayed->{acknowledged},
	"all $replayed->{frames} acknowledged frames are known when they come again");
my $applied = 'tidegate_aggregator_frames_total,applied';
ok($fleet_before->{own}{$applied} == $fleet_after->{own}{$applied}, 'none of them was applied twice');
if ($failed) {
	print map { "# $_\n" } map { my @l = split /\n/, World::slurp("$w->{dir}/$_.log") // ''; $_, @l[(@l > 20 ? -20 : -@l) .. -1] }
		qw(aggregator agent0 agent1);
}
$w->end($failed && $ENV{CHAOS_KEEP} ? "$ENV{CHAOS_KEEP}/outage" : undef);
print "1..$n\n";
exit($failed ? 1 : 0);
