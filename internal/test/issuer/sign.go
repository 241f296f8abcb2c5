package issuer

import (
	"encoding/json"

	"github.com/go-jose/go-jose/v4"
)

// Sign signs claims with anything, also with what no issuer would.
func Sign(key jose.SigningKey, claims map[string]any, head map[jose.HeaderKey]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	opts := (&jose.SignerOptions{}).WithType("JWT")
	for name, value := range head {
		opts.WithHeader(name, value)
	}
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}
