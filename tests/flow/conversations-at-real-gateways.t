#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What clients do other than ask and wait: over TCP and unix sockets, a byte at a time, 8 MB up and down,
# "Expect: 100-continue", HTTP/1.0, pipelines, descriptors used again at once; and an agent that comes into
# the middle of it. By method and code the agent counts what the client did and what the log says.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/gateways.sh"
source "$(dirname "$0")/talk.sh"

for tool in haproxy caddy hey ss; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin talks

# ---- three gateways; nginx is also what the others ask below /up ----
big=8388608
# A line of a log: method, status, query (to leave out what began before the agent).
# shellcheck disable=SC2016 # nginx's variables
nginx_edit='s|access_log \(.*\) combined;|log_format talk "$request_method $status $args"; access_log \1 talk;|
s|keepalive_requests .*|&\n client_max_body_size 16m;|
s|listen .*|&\n listen unix:'$world'/nginx/talk.sock;\
 location /on/ { sendfile on; alias '$world'/nginx/files/; }\
 location /off/ { sendfile off; alias '$world'/nginx/files/; }\
 location = /take { content_by_lua_block { ngx.req.read_body() ngx.say("taken") } }\
 location = /both { content_by_lua_block {\
  ngx.req.read_body() local block = ("y"):rep(65536) for _ = 1, '$((big / 65536))' do ngx.print(block) end } }\
 location = /gate { content_by_lua_block {\
  if ngx.var.arg_half then ngx.print("half") ngx.flush(true) end\
  while not io.open("'$world'/opened") do ngx.sleep(0.02) end ngx.print("done") } }|'
mkdir -p "$world/nginx/files"
head -c $big /dev/zero >"$world/nginx/files/big"
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
# shellcheck disable=SC2034 # gateways.sh reads it
haproxy_edit='s|log-format .*|log-format "%HM %ST %HQ %Ta"\n  option splice-request\n  option splice-response|
s|bind \(.*\) thread 1|&\n  bind unix@'$world'/haproxy/talk.sock thread 1|'
start_haproxy "127.0.0.1:$gateway_port" || { echo "Bail out! haproxy does not start"; exit 1; }
start_caddy "127.0.0.1:$gateway_port" || { echo "Bail out! caddy does not start"; exit 1; }
# shellcheck disable=SC2154 # gateways.sh sets them
match_gateways "nginx=nginx:$gateway_port" "haproxy=haproxy:$haproxy_port" "caddy=caddy:$caddy_port"
gateways='nginx haproxy caddy'
declare -A door=(
	[nginx]=127.0.0.1:$gateway_port [nginx-unix]=$world/nginx/talk.sock
	[haproxy]=127.0.0.1:$haproxy_port [haproxy-unix]=$world/haproxy/talk.sock
	[caddy]=127.0.0.1:$caddy_port
)

# ---- what the client does, and keeps a tally of ----
declare -A did=()
bad=0
failed() { note "$*: $said"; bad=$((bad + 1)); }
step() { talk "$@" || failed "$@"; }
# answer DOOR CONNECTION METHOD PATH CODE [BYTES]: reads it, and counts it at every gateway on its way.
answer() {
	step read "$2" "$3"
	while [ "$said" = '100 0' ]; do step read "$2" "$3"; done # caddy says its own and its upstream's
	[ "${said% *}" = "$5" ] && [ "${said#* }" = "${6:-${said#* }}" ] || failed "$1 $3 $4, not $5 ${6:-}"
	[[ $4 == *\?before* ]] || tally "$@" 1
}
tally() { # DOOR CONNECTION METHOD PATH CODE … TIMES
	local gate=${1%-unix}
	did[$gate $3 $5]=$((${did[$gate $3 $5]:-0} + ${@: -1}))
	[[ $gate == nginx || $4 != /up/* ]] || did[nginx $3 $5]=$((${did[nginx $3 $5]:-0} + ${@: -1}))
}
# caddy looks at the host and its port, the others at none.
host=Host:\ 127.0.0.1:$caddy_port'\r\n'
head_of() { # METHOD PATH [VERSION [HEADER\r\n…]]
	printf '%s %s HTTP/1.%s\\r\\n%s%s\\r\\n' "$1" "$2" "${3:-1}" "$host" "${4:-}"
}
# ask DOOR CONNECTION METHOD PATH CODE [BYTES [HEADER\r\n… [BODY]]]
ask() {
	step send "$2" "$(head_of "$3" "$4" 1 "${7:-}")${8:-}"
	answer "${@:1:6}"
}
up_of() { [[ $1 == nginx* ]] || echo /up; }

# ---- what agent and logs say: METHOD CODE=N … ----
sums() { awk '{n[$1 " " $2] += $3} END {for (c in n) if (n[c]) print c "=" n[c]}' | sort | xargs; }
log_nginx() { cat "$world/nginx/logs/access.log"; }
log_haproxy() { awk '$1 ~ /^[A-Z]+$/ && $2 ~ /^[1-5][0-9][0-9]$/' "$world"/haproxy/{access,error}.log; }
log_caddy() { jq -r '"\(.request.method) \(.status) \(.request.uri | sub("^[^?]*"; ""))"' "$world/caddy/access.log"; }
# What had been there when the agent came goes off again: two files are no list to cut.
declare -A log_before
log_of() { "log_$1" | sed 's/$/ +1/'; sed 's/$/ -1/' <<<"${log_before[$1]}"; }
by_log() { log_of "$1" | awk '$3 !~ /before/ {print $1, $2, $NF}' | sums; }
by_agent() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" | sed -n "/^tidegate_requests_total.*gateway=\"$1\"/{
		s/.*method=\"\([A-Z]*\)\".*code=\"\([0-9]*\)\".* \([0-9]*\)\$/\1 \2 \3/p}" | sums
}
by_client() {
	local key
	for key in "${!did[@]}"; do [ "${key%% *}" = "$1" ] && echo "${key#* } ${did[$key]}"; done | sums
}
agrees() { [ "$(by_agent "$1")" = "$(by_client "$1")" ] && [ "$(by_log "$1")" = "$(by_client "$1")" ]; }
same() { # same WHAT: everywhere. A line is written after its answer, a count is read at the next tick.
	local each
	is $bad 0 "$1: the client was answered as it should be"
	bad=0
	for each in $gateways; do
		wait_for 10 agrees "$each"
		is "$(by_agent "$each")" "$(by_client "$each")" "$1: $each: counted as the client did"
		is "$(by_log "$each")" "$(by_client "$each")" "$1: $each: and so it is in the log"
	done
}

# ---- connections that are there before the agent ----
held() { # held GATEWAY: connections that it accepted
	local tcp=${door[$1]##*:} path=${door[$1-unix]:-/none}
	{
		ss -Htn state established state close-wait "sport = :$tcp"
		ss -Hxn state established | grep -F "$path"
	} | wc -l
}
# All that was sent has been read: nothing waits in a socket.
all_read() {
	! {
		for each in $gateways; do ss -Htn state established "sport = :${door[$each]##*:}"; done
		ss -Hxn state established | grep -F "$world" | cut -d ' ' -f 2-
	} | grep -q '^ *[1-9]'
}
body_head="Content-Length: 60000\r\n"
for at in "${!door[@]}"; do
	up=$(up_of "$at")
	for part in idle line head body answer rest; do
		step open "$at-$part" "${door[$at]}"
		ask "$at" "$at-$part" GET "$up/fast?before" 200 5
	done
	step send "$at-line" 'GET /hello?before HTT'
	step send "$at-head" 'POST /hello?before HTTP/1.1\r\n'"${host}X-Half: o"
	step send "$at-body" "$(head_of POST "$up/take?before" 1 "$body_head")%30000"
	step send "$at-answer" "$(head_of GET "$up/gate?before")"
	step send "$at-rest" "$(head_of GET "$up/gate?before&half=1")"
done
is $bad 0 "connections are open, and in the middle of all that there is"
wait_for 10 all_read; ok $? "the gateways have read what was sent"
for each in $gateways; do log_before[$each]=$("log_$each"); done
start_agent
opened() { agent_metric tidegate_connections_open "gateway=\"$1\""; }
found() { [ "$(opened "$1")" = "$(held "$1")" ] && [ "$(opened "$1")" -gt 0 ]; }
for each in $gateways; do
	wait_for 20 found "$each"; ok $? "$each: the agent finds its connections, $(opened "$each")"
done
# What had begun is answered, and is nobody's; the next request counts.
touch "$world/opened"
for at in "${!door[@]}"; do
	up=$(up_of "$at")
	hello=/hello
	step send "$at-line" 'P/1.1\r\n'"$host\r\n"
	answer "$at" "$at-line" GET "/hello?before" 200
	step send "$at-head" 'ne\r\nContent-Length: 0\r\n\r\n'
	answer "$at" "$at-head" POST "/hello?before" 200
	step send "$at-body" '%30000'
	answer "$at" "$at-body" POST "$up/take?before" 200 6
	answer "$at" "$at-answer" GET "$up/gate?before" 200 4
	answer "$at" "$at-rest" GET "$up/gate?before" 200 8
	for part in idle line head body answer rest; do
		ask "$at" "$at-$part" GET $hello 200
		ask "$at" "$at-$part" PUT "$up/take" 200 6 'Content-Length: 3\r\n' abc
	done
done
same "the agent came into the middle"
began() { log_of "$1" | awk '$3 ~ /before/ {n += $NF} END {print n}'; }
# Each door's five; of HAProxy's and caddy's, three went on to nginx.
is "$(began nginx) $(began haproxy) $(began caddy)" "$((10 + 9)) 10 5" "what had begun is in the logs alone"

# ---- all kinds of conversation, one after the other on as few connections as can be ----
post='Content-Length: 5\r\n'
for at in "${!door[@]}"; do
	up=$(up_of "$at") c=$at-idle
	step dribble "$c" "$(head_of GET "$up/fast?%70" 1 'X-Long: %300\r\n')"
	answer "$at" "$c" GET "$up/fast" 200 5
	step dribble "$c" "$(head_of HEAD "$up/on/big")"
	answer "$at" "$c" HEAD "$up/on/big" 200 0
	step dribble "$c" "$(head_of POST "$up/take" 1 "$post")abcde"
	answer "$at" "$c" POST "$up/take" 200 6
	step dribble "$c" "$(head_of PUT "$up/take" 1 'Transfer-Encoding: chunked\r\n')3\r\nabc\r\n00b\r\n%11\r\n0\r\n\r\n"
	answer "$at" "$c" PUT "$up/take" 200 6

	step send "$c" "$(head_of POST "$up/take" 1 "${post}Expect: 100-continue\r\n")"
	step read "$c" POST
	[ "$said" = '100 0' ] || failed "$at: 100"
	step send "$c" abcde
	answer "$at" "$c" POST "$up/take" 200 6

	step send "$c" "$(head_of GET "$up/fast")$(head_of HEAD "$up/fast")$(head_of GET "$up/nope"
		)$(head_of POST "$up/take" 1 "$post")abcde$(head_of GET "$up/on/big"
		)$(head_of DELETE "$up/off/big")$(head_of GET "$up/both")"
	answer "$at" "$c" GET "$up/fast" 200 5
	answer "$at" "$c" HEAD "$up/fast" 200 0
	answer "$at" "$c" GET "$up/nope" 404
	answer "$at" "$c" POST "$up/take" 200 6
	answer "$at" "$c" GET "$up/on/big" 200 $big
	answer "$at" "$c" DELETE "$up/off/big" 405
	answer "$at" "$c" GET "$up/both" 200 $big

	ask "$at" "$c" GET "$up/off/big" 200 $big
	ask "$at" "$c" POST "$up/take" 200 6 "Content-Length: $big\r\n" "%$big"
	ask "$at" "$c" POST "$up/both" 200 $big "Content-Length: $big\r\n" "%$big"
	ask "$at" "$c" GET "$up/on/big" 200 $big

	c=$at-old
	step open "$c" "${door[$at]}"
	for _ in 1 2; do
		step send "$c" "$(head_of GET "$up/fast" 0 'Connection: keep-alive\r\n')"
		answer "$at" "$c" GET "$up/fast" 200 5
	done
	step send "$c" "$(head_of GET "$up/both" 0)"
	answer "$at" "$c" GET "$up/both" 200 $big
	step open "$c" "${door[$at]}"
	step send "$c" "$(head_of POST "$up/take" 0 "$post")abcde"
	answer "$at" "$c" POST "$up/take" 200 6
	step close "$c" # nginx waits for that before it writes its line
done
same "conversations"
is "$(agent_metric tidegate_requests_lost_total) $(agent_metric tidegate_requests_aborted_total)" '0 0' \
	"none was lost, none aborted"

# ---- descriptors used again at once, all gateways at the same time ----
jobs=()
for each in $gateways; do
	hey -n 504 -c 7 -disable-keepalive "http://${door[$each]}$(up_of "$each")/fast" >"$world/$each.txt" 2>&1 &
	jobs+=($!)
done
for at in nginx-unix haproxy-unix; do
	for _ in {1..53}; do
		step open "$at-short" "${door[$at]}"
		ask "$at" "$at-short" GET "$(up_of "$at")/fast" 200 5
		step close "$at-short"
	done
done
wait "${jobs[@]}"
for each in $gateways; do
	is "$(client_count "$world/$each.txt" 200)" 504 "$each: the client saw every answer"
	tally "$each" hey GET "$(up_of "$each")/fast" 200 504
done
same "short connections"

calls() { agent_metric tidegate_syscalls_total "gateway=\"$1\".*syscall=\"$2\""; }
[ "$(calls nginx sendfile)" -gt 0 ]; ok $? "nginx has used sendfile"
[ "$(calls haproxy splice)" -gt 0 ]; ok $? "HAProxy has used splice"
is "$(agent_metric tidegate_probe_lost_total)" "" "the probes lost nothing"
tap_end
