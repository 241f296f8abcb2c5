package durable

// Durability says what a recorded chunk survives. Both stores of a server take the same one, since
// the bytes of a chunk and their record are safe only together. A finished memory survives a power
// loss either way.
type Durability uint8

const (
	// Power: a power loss. It is the zero value, so that a setting that was forgotten costs speed
	// and no data.
	Power Durability = iota
	// Process: the death of the process. A power loss may take chunks back that were acknowledged.
	Process
)
