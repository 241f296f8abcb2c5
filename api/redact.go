package api

import (
	"log/slog"
	"regexp"
)

// secrets matches what looks like a token, whole or in part: one of this server, or a JWT, which an
// issuer has made. Errors quote what a client has sent, and a client may send its token in the
// wrong place.
var secrets = regexp.MustCompile(`(slc_)[0-9A-Za-z]*|(eyJ)[0-9A-Za-z_-]*(?:\.[0-9A-Za-z_-]+)*`)

// wholeSecrets matches what may be a whole token. A token also has the form of a capsule's id.
var wholeSecrets = regexp.MustCompile(`slc_[0-9a-z]{39}`)

// hidden stands for a token.
const hidden = "slc_[hidden]"

// withoutSecrets is an error that is logged without tokens.
type withoutSecrets struct{ error }

// LogValue implements [slog.LogValuer].
func (e withoutSecrets) LogValue() slog.Value {
	return slog.StringValue(withoutTokens(e.Error()))
}

// withoutTokens hides in a text what looks like a token, all but how it begins.
func withoutTokens(text string) string {
	return secrets.ReplaceAllString(text, "${1}${2}[hidden]")
}
