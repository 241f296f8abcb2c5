package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"sluice/api"
)

// A file is uploaded in chunks, in any order and as often as need be. It is finished with its
// SHA-256, and can then be read.
func Example() {
	ctx := context.Background()
	url, token, stop := serveInMemory(ctx)
	defer stop()
	client := api.NewClient(url, token, nil)

	file := bytes.Repeat([]byte("sluice "), 1500)
	size := int64(len(file))
	session, err := client.Begin(ctx, api.BeginRequest{
		CapsuleID: "default",
		Meta:      api.Meta{Name: "sluices.txt", MIMEType: "text/plain", Bytes: &size},
		Idem:      "sluices.txt of this morning", // a Begin that is repeated answers the same session
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("chunks to send:", session.Missing)

	for _, missing := range session.Missing {
		for idx := missing[0]; idx <= missing[1]; idx++ {
			off := idx * session.ChunkSize
			part := io.NewSectionReader(bytes.NewReader(file), off, min(session.ChunkSize, size-off))
			if err := client.PutChunk(ctx, session.SessionID, idx, part, part.Size(), api.PutOptions{}); err != nil {
				fmt.Println(err) // and ask client.Status what is still missing
				return
			}
		}
	}

	memory, err := client.Finish(ctx, api.FinishRequest{
		SessionID: session.SessionID,
		SHA256:    fmt.Sprintf("%x", sha256.Sum256(file)),
		TotalLen:  size,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("stored: %s, %d bytes of %s\n", memory.Name, memory.Bytes, memory.MIMEType)

	body, _, err := client.Content(ctx, memory.MemoryID, 0, -1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer body.Close()
	back, err := io.ReadAll(body)
	fmt.Println("read back the same:", err == nil && bytes.Equal(back, file))

	// Output:
	// chunks to send: [[0 2]]
	// stored: sluices.txt, 10500 bytes of text/plain
	// read back the same: true
}
