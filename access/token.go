package access

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"io"
	"regexp"
	"strings"

	"sluice/catalog"
)

// A secret is
//
//	slc_ <32 digits: 160 random bits> <7 digits: CRC-32 of all before>
//
// in base32 digits a-z2-7. The check sum lets secret scanners find a leaked secret. A mistyped
// secret is refused without a look-up.
const (
	prefix    = "slc_"
	secretLen = len(prefix) + 32 + 7
)

var digits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newSecret(rand io.Reader) (string, error) {
	var raw [20]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return "", err
	}
	s := prefix + digits.EncodeToString(raw[:])
	return s + checkSum(s), nil
}

func checkSum(s string) string {
	return digits.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
}

// hashOf gives the key under which a secret's token is stored, if s has the form of a secret. The
// key is the hash of 160 random bits, so the time of a look-up tells nothing about any secret.
func hashOf(s string) (catalog.SHA256, bool) {
	if len(s) != secretLen || !strings.HasPrefix(s, prefix) || checkSum(s[:secretLen-7]) != s[secretLen-7:] {
		return catalog.SHA256{}, false
	}
	return sha256.Sum256([]byte(s)), true
}

// jwt matches a token of an issuer: its header and its claims are objects of JSON in base64url.
var jwt = regexp.MustCompile(`eyJ[0-9A-Za-z_-]+\.eyJ[0-9A-Za-z_-]+\.`)

// HasSecret reports whether a part of the text has the form of a secret, or of a token of an
// issuer. It does not compare the check sum: with one wrong digit a secret is still as good as
// known.
func HasSecret(text string) bool {
	if jwt.MatchString(text) {
		return true
	}
	for {
		_, rest, found := strings.Cut(text, prefix)
		if !found {
			return false
		}
		n := 0
		for n < len(rest) && (rest[n] >= 'a' && rest[n] <= 'z' || rest[n] >= '2' && rest[n] <= '7') {
			n++
		}
		if n >= secretLen-len(prefix) {
			return true
		}
		text = rest
	}
}
