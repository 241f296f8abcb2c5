package pebblemeta

import "sluice/catalog"

type grantRow struct {
	ID        string   `cbor:"1,keyasint"`
	Kind      uint8    `cbor:"2,keyasint"`
	Hash      [32]byte `cbor:"3,keyasint"`
	Name      string   `cbor:"4,keyasint,omitempty"`
	Maker     string   `cbor:"5,keyasint"`
	Capsule   string   `cbor:"6,keyasint"`
	Created   stamp    `cbor:"7,keyasint,omitempty"`
	Expires   stamp    `cbor:"8,keyasint,omitempty"`
	MaxBytes  int64    `cbor:"9,keyasint,omitempty"`
	MIME      []string `cbor:"10,keyasint,omitempty"`
	Uploads   int64    `cbor:"11,keyasint,omitempty"`
	Open      int64    `cbor:"12,keyasint,omitempty"`
	Done      int64    `cbor:"13,keyasint,omitempty"`
	Memory    [16]byte `cbor:"14,keyasint"`
	Downloads int64    `cbor:"15,keyasint,omitempty"`
	Read      int64    `cbor:"16,keyasint,omitempty"`
}

func storeGrant(g catalog.Grant) grantRow {
	return grantRow{
		g.ID, uint8(g.Kind), g.Hash, g.Name, g.Maker, g.Capsule, storeTime(g.Created), storeTime(g.Expires), g.MaxBytes,
		g.MIME, g.Uploads, g.Open, g.Done, g.Memory, g.Downloads, g.Read,
	}
}

func loadGrant(r grantRow) catalog.Grant {
	return catalog.Grant{
		ID: r.ID, Kind: catalog.GrantKind(r.Kind), Hash: r.Hash, Name: r.Name, Maker: r.Maker, Capsule: r.Capsule,
		Created: loadTime(r.Created), Expires: loadTime(r.Expires), MaxBytes: r.MaxBytes, MIME: r.MIME,
		Uploads: r.Uploads, Open: r.Open, Done: r.Done, Memory: r.Memory, Downloads: r.Downloads, Read: r.Read,
	}
}

type grantRefRow struct {
	ID     string   `cbor:"1,keyasint"`
	Kind   uint8    `cbor:"2,keyasint"`
	Hash   [32]byte `cbor:"3,keyasint"`
	Maker  string   `cbor:"4,keyasint"`
	Holder string   `cbor:"5,keyasint,omitempty"`
}

func storeGrantRef(g catalog.GrantRef) grantRefRow {
	return grantRefRow{g.ID, uint8(g.Kind), g.Hash, g.Maker, string(g.Holder)}
}

func loadGrantRef(r grantRefRow) catalog.GrantRef {
	return catalog.GrantRef{
		ID: r.ID, Kind: catalog.GrantKind(r.Kind), Hash: r.Hash, Maker: r.Maker, Holder: catalog.GrantHolder(r.Holder),
	}
}
