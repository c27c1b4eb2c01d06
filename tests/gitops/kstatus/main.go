// What Flux and Argo CD make of the objects on standard input, by their own code.
//
// Usage: kstatus FLUX_KUSTOMIZATION.yaml ARGOCD_HEALTH.lua < objects.json > verdicts.json
//
// The input is a JSON list of objects; the output a list of verdicts in the same order.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

type verdict struct {
	// Kstatus is the plain rules' word, as Flux without expressions and kpt use them.
	Kstatus        string `json:"kstatus"`
	KstatusMessage string `json:"kstatusMessage"`
	// Flux is the word of healthCheckExprs; FluxError says why they could not be evaluated.
	Flux        string `json:"flux"`
	FluxError   string `json:"fluxError"`
	Argo        string `json:"argo"`
	ArgoMessage string `json:"argoMessage"`
}

func main() {
	if err := judgeAll(os.Args[1], os.Args[2], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judgeAll(kustomization, health string, in io.Reader, out io.Writer) error {
	expressions, err := readExpressions(kustomization)
	if err != nil {
		return err
	}
	script, err := os.ReadFile(health)
	if err != nil {
		return err
	}
	input, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(input, &raw); err != nil {
		return err
	}
	verdicts := make([]verdict, 0, len(raw))
	for _, text := range raw {
		object := &unstructured.Unstructured{}
		// Its decoder gives whole numbers as int64, as a client's does.
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		found, err := judge(object, expressions, string(script))
		if err != nil {
			return err
		}
		verdicts = append(verdicts, found)
	}
	return json.NewEncoder(out).Encode(verdicts)
}

func judge(object *unstructured.Unstructured, expressions *cel.StatusEvaluator, script string) (verdict, error) {
	plain, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	found := verdict{Kstatus: plain.Status.String(), KstatusMessage: plain.Message}
	if result, err := expressions.Evaluate(context.Background(), object); err != nil {
		found.FluxError = err.Error()
	} else {
		found.Flux = result.Status.String()
	}
	found.Argo, found.ArgoMessage, err = runHealth(object, script)
	return found, err
}

// readExpressions takes the expressions for FineTuneJob from a Kustomization, field by field as Flux knows them.
func readExpressions(path string) (*cel.StatusEvaluator, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []json.RawMessage `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		return nil, err
	}
	for _, raw := range kustomization.Spec.HealthCheckExprs {
		var check kustomize.CustomHealthCheck
		if err := yaml.UnmarshalStrict(raw, &check); err != nil {
			return nil, err
		}
		if check.Kind == "FineTuneJob" && check.APIVersion == "finetuning.dev/v1alpha1" {
			return cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		}
	}
	return nil, fmt.Errorf("%s has no healthCheckExprs for FineTuneJob", path)
}

// runHealth runs a script in the interpreter of Argo CD, with the libraries that Argo CD opens by default.
func runHealth(object *unstructured.Unstructured, script string) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script must return a table, not %s", state.Get(-1).Type())
	}
	return lua.LVAsString(health.RawGetString("status")), lua.LVAsString(health.RawGetString("message")), nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch known := value.(type) {
	case bool:
		return lua.LBool(known)
	case int64:
		return lua.LNumber(known)
	case float64:
		return lua.LNumber(known)
	case string:
		return lua.LString(known)
	case []any:
		list := state.NewTable()
		for _, entry := range known {
			list.Append(toLua(state, entry))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for key, entry := range known {
			table.RawSetString(key, toLua(state, entry))
		}
		return table
	}
	return lua.LNil
}
