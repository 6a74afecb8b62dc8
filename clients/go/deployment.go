// The id of a deployment: a hash of what an app registers and of the program that serves it.

package stepwell

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/blake2b"
	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// deploymentID is 16 hex digits: the same for the same build, on every machine (H15).
func deploymentID(specs []*stepwellv1.FunctionSpec) (string, error) {
	digest, err := blake2b.New(8, nil)
	if err != nil {
		return "", err
	}
	for _, spec := range specs {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
		if err != nil {
			return "", fmt.Errorf("function %s cannot be registered: %w", spec.GetName(), err)
		}
		digest.Write(data)
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("the id of this deployment: %w; give one with Deployment", err)
	}
	program, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("the id of this deployment: %w; give one with Deployment", err)
	}
	defer program.Close()
	if _, err := io.Copy(digest, program); err != nil {
		return "", fmt.Errorf("the id of this deployment: %w; give one with Deployment", err)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}
