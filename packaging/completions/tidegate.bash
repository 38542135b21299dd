# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# bash completion for tidegate. Verbs and options come from the program's own help.

_tidegate() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' words=''
	local i

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} != -* ]]; then
			verb=${COMP_WORDS[i]}
			break
		fi
	done
	if [[ -z $verb ]]; then
		words=$("${COMP_WORDS[0]}" --help 2>/dev/null | awk '/^  [a-z]/ { print $1 }')
		mapfile -t COMPREPLY < <(compgen -W "$words --help --version" -- "$current")
		return
	fi
	case $previous in
	--config | --file | --svg | --folded | --segment | --policy | --trace | --ca | --cert | --key)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--gateway | --instance | --seconds | --deadline | --topic | --metric | --count | --snapshots | --interval)
		return
		;;
	esac
	if [[ $verb == hooks && $current != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "check run" -- "$current")
		[[ $COMP_CWORD -le 2 ]] || mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
	fi
	words=$("${COMP_WORDS[0]}" --help 2>/dev/null |
		awk -v verb="$verb" '/^  [a-z]/ { mine = $1 == verb } mine { print }' |
		grep -o -e '--[a-z-]*')
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _tidegate tidegate
