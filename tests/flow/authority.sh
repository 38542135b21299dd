# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # world is of lib.sh
# Certificates for a test, made with openssl: an authority, and folders ca.pem, cert.pem, key.pem of
# whom it vouches for.

pki() { openssl "$@" >>"$world/openssl.out" 2>&1; }

authority_new() { # authority_new NAME
	mkdir -p "$world/pki"
	pki req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign \
		-keyout "$world/pki/$1.key" -out "$world/pki/$1.crt"
}

# certificate FOLDER AUTHORITY SAN [DAYS [TRUSTED]]: in place of the one that is there, all three files
# in one moment, as Kubernetes does it: they are links through ..data, which is swapped. The key is for
# all users of this host to read: processes have users of their own.
certificate() {
	local dir=$world/$1 serial file
	serial=..$(date +%s%N)
	mkdir -p "$dir/$serial"
	pki req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
		-keyout "$dir/$serial/key.pem" -out "$world/pki/request" &&
		pki x509 -req -in "$world/pki/request" -CA "$world/pki/$2.crt" -CAkey "$world/pki/$2.key" \
			-CAcreateserial -days "${4:-2}" -extfile <(echo "subjectAltName=$3") \
			-out "$dir/$serial/cert.pem" &&
		cp "$world/pki/${5:-$2}.crt" "$dir/$serial/ca.pem" || return
	chmod 755 "$dir" "$dir/$serial" && chmod 644 "$dir/$serial"/*.pem
	ln -s "$serial" "$dir/..new" && mv -T "$dir/..new" "$dir/..data"
	for file in ca.pem cert.pem key.pem; do
		[ -L "$dir/$file" ] || ln -s "..data/$file" "$dir/$file"
	done
}

tls_section() { # tls_section FOLDER: lines of YAML
	printf 'tls:\n  ca_file: %s\n  cert_file: %s\n  key_file: %s\n' \
		"$world/$1/ca.pem" "$world/$1/cert.pem" "$world/$1/key.pem"
}
