#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Hooks of a real agent: programs of drain.exec run, nothing else does, one that hangs is killed with
# its children, a hook that hangs or raises costs its own time only; the drain is done all the same.
source "$(dirname "$0")/lib.sh"

world_begin exec
# A sixth of the deadline is what drain.begin has, on a busy machine too.
drain_options='  deadline: 60s
  quiet: 500ms
  hook_cpu: 300ms'
mkdir -p "$world/bin"
chmod 755 "$world/bin"
program() { cat >"$world/bin/$1" && chmod 755 "$world/bin/$1"; }
program allowed <<'SH'
#!/bin/sh
echo "ran as $(id -u) with $# arguments: $1; environment: $(env | grep -vc '^PATH=\|^PWD=\|^_=\|^SHLVL=\|^OLDPWD=')"
grep '^CapEff' /proc/self/status
ls /proc/self/fd | wc -l
exit 7
SH
program forbidden <<SH
#!/bin/sh
touch $world/open/forbidden-ran
SH
program hanging <<SH
#!/bin/sh
sleep 61.7 &
echo begun; wait
SH
mkdir "$world/open" && chmod 777 "$world/open"
drain_options+="
  exec: [\"$world/bin/allowed\", \"$world/bin/hanging\"]"
write_config
cat >"$world/hooks/10-exec.lua" <<LUA
local function hook(name, run)
	tidegate.hook({ name = name, point = "drain.begin", run = run })
end
hook("allowed", function()
	local status, output = tidegate.exec({ "$world/bin/allowed", "a; touch $world/open/injected" })
	tidegate.log("allowed " .. status .. " " .. (output:gsub("\n", " | ")))
end)
hook("forbidden", function() tidegate.run({ "$world/bin/forbidden" }) end)
hook("sneaky", function() tidegate.run({ "$world/bin/../bin/forbidden" }) end)
hook("relative", function() tidegate.run({ "allowed" }) end)
hook("hanging", function() tidegate.run({ "$world/bin/hanging" }, 0.5) end)
hook("endless", function() while true do pcall(function() while true do end end) end end)
hook("raises", function() error("on purpose") end)
hook("no-os", function() assert(os == nil or os.execute == nil); assert(io == nil or io.popen == nil) end)
LUA
cat >"$world/hooks/20-broken.lua" <<'LUA'
local x = = 3
LUA
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"
grep -q '20-broken.lua:1: unexpected symbol' "$world/agent.log"
ok $? "a hook with a syntax error is named with its file and line"

"$tidegate" drain --config "$world/agent.yaml" --json >"$world/report"
is $? 0 "the drain is done all the same"
hook_of() { jq -r ".hooks[] | select(.name == \"$1\") | $2" "$world/report"; }
is "$(jq .lost "$world/report")" 0 "nothing was lost"
wait_for 5 gone "$nginx_pid"; ok $? "nginx is gone"
is "$(hook_of allowed .ok)" true "an allowed program runs"
grep -q 'allowed 7 ran as [1-9][0-9]* with 1 arguments: a; touch .*; environment: 0 | CapEff:.0000000000000000' \
	"$world/agent.log"
ok $? "with its status and output, no shell, no root, no capability, nothing of our environment"
[ ! -e "$world/open/injected" ]; ok $? "an argument is an argument"
for name in forbidden sneaky relative hanging endless raises; do
	is "$(hook_of $name .ok)" false "$name: fails"
done
[ ! -e "$world/open/forbidden-ran" ]; ok $? "what is not allowed did not run"
grep -q 'hook=forbidden.*drain.exec' "$world/agent.log"; ok $? "and the log names the option"
! pgrep -f 'sleep 61\.7' >/dev/null; ok $? "a program that hangs is killed with its children"
is "$(hook_of no-os .ok)" true "there is no os.execute, no io.popen"
tap_end
