# SPDX-License-Identifier: Apache-2.0
# The structs of proto/segment.h with the place of each field: as=man prints tables for tbl, as=assert
# C that does not compile when a place is wrong; only=NAME: of one struct. Natural alignment; uintN_t and char, arrays of them.
BEGIN {
	split("uint64_t 8 uint32_t 4 uint16_t 2 uint8_t 1 char 1", word, " ")
	for (i = 1; i < 10; i += 2) bytes[word[i]] = word[i + 1]
	shown["uint64_t"] = "u64"; shown["uint32_t"] = "u32"; shown["uint8_t"] = "u8"; shown["char"] = "char"
	if (as == "assert") print "#include \"segment.h\""
}
/^#define [A-Z_]+ +[0-9]+$/ { constant[$2] = $3 }
/^struct [a-z_]+ \{$/ && (!only || only == $2) { name = $2; body = ""; next }
/^};$/ && name { struct(name, body); name = "" }
name { body = body $0 "\n" }

function trimmed(s) {
	gsub(/[ \t\n]*\n[ \t]*\*?[ \t]*/, " ", s)
	sub(/^[ \t\n]+/, "", s)
	sub(/[ \t\n]+$/, "", s)
	return s
}

# A comment behind a declaration on its line says what that is; any other belongs to the next one.
function struct(of, text, at, end, comment) {
	offset = 0; rows = 0; widest = 1; before = ""
	while (match(text, /[^ \t\n]/)) {
		text = substr(text, RSTART)
		if (substr(text, 1, 2) == "/*") {
			end = index(text, "*/")
			before = trimmed(substr(text, 3, end - 3))
			text = substr(text, end + 2)
			continue
		}
		end = index(text, ";")
		at = trimmed(substr(text, 1, end - 1))
		text = substr(text, end + 1)
		comment = before
		before = ""
		if (match(text, /^[ \t]*\/\*/)) {
			text = substr(text, RLENGTH + 1)
			end = index(text, "*/")
			comment = trimmed(substr(text, 1, end - 1))
			text = substr(text, end + 2)
		}
		declare(of, at, comment)
	}
	offset = int((offset + widest - 1) / widest) * widest
	finish(of)
}

function declare(of, text, comment, type, list, n, i, count, size) {
	type = text
	sub(/ .*/, "", type)
	if (!(type in bytes)) {
		print "segment-fields: not a type that is known: " text >"/dev/stderr"
		exit 1
	}
	sub(/^[^ ]+ +/, "", text)
	n = split(text, list, /, */)
	for (i = 1; i <= n; i++) {
		count = ""
		if (match(list[i], /\[.*\]/)) {
			count = substr(list[i], RSTART + 1, RLENGTH - 2)
			if (count in constant) count = constant[count]
			sub(/\[.*/, "", list[i])
		}
		size = bytes[type]
		if (size > widest) widest = size
		offset = int((offset + size - 1) / size) * size
		field(of, list[i], type, count, i == 1 ? comment : "")
		offset += size * (count == "" ? 1 : count)
	}
}

function field(of, what, type, count, comment) {
	if (as == "assert") {
		printf "static_assert(offsetof(struct %s, %s) == %d, \"\");\n", of, what, offset
		printf "static_assert(sizeof(((struct %s *)0)->%s) == %d, \"\");\n", of, what, \
			bytes[type] * (count == "" ? 1 : count)
		return
	}
	gsub(/\\/, "\\e", comment)
	gsub(/-/, "\\-", comment)
	gsub(/…/, "...", comment)
	if (!rows++) printf ".TS\nr l l lx.\n\\fBoffset\\fR\t\\fBtype\\fR\t\\fBfield\\fR\t\\fBmeaning\\fR\n"
	printf "%d\t%s%s\t%s\tT{\n.ad l\n%s\nT}\n", offset, shown[type], count == "" ? "" : "[" count "]", what, \
		comment == "" ? "\\&" : comment
}

function finish(of) {
	if (as == "assert")
		printf "static_assert(sizeof(struct %s) == %d, \"\");\n", of, offset
	else
		printf "%d\t\t\tend\n.TE\n", offset
}
