#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "api/test_support.h"
#include "ctl/cli_kit.h"

using mps::api::test::TempDir;
using mps::ctl::test::run;

namespace {

// In a directory with files that patterns would match, and with a program that answers like
// mps-ctl. `expect LINE REPLIES…`: what comes when LINE was typed.
const char* const k_completion_test = R"(
mkdir bin
cat > bin/mps-ctl <<'END'
#!/bin/sh
case "$*" in
  clients) printf 'INSTANCE PID UID\ngpu0.shared 100 0\ngpu0.shared 1234 0\n- - -\n' ;;
  instances) printf 'ID STATE\ngpu0.shared ready\n- -\n' ;;
  shares) printf 'SHARE INSTANCE\nopen gpu0.shared\ns1 gpu0.shared\n' ;;
  faults) printf 'FAULT AGE\nf12 5m\nf7 2h\n' ;;
  'quarantine list') printf 'ENTRY NAMESPACE\nq3 team-a\n' ;;
  'policy list')
    printf '%s\n' 'NAMESPACE FILE' '* default.yaml:14' '- bad.yaml' 'team-a team-a.yaml:4' \
      'unit:* default.yaml:30' 'unit:dev-\x2dx unit.yaml:4' '' 'bad.yaml:1:1: broken' ;;
esac
END
chmod +x bin/mps-ctl
PATH=$PWD/bin:$PATH
touch team-file '*' unit:file
expect() {
  COMP_LINE=$1 COMP_POINT=${#1}
  shift
  local spaced=${COMP_LINE//:/ : }
  read -r -a COMP_WORDS <<< "$spaced"
  [[ $COMP_LINE != *' ' ]] || COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _mps_ctl
  local got want
  printf -v got '<%s>' "${COMPREPLY[@]}"
  printf -v want '<%s>' "$@"
  [[ $got == "$want" ]] || { echo "$COMP_LINE: $got and not $want"; exit 1; }
}
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
expect 'mps-ctl events --fol' --follow
expect 'mps-ctl -o y' yaml
expect 'mps-ctl un' undrain
expect 'mps-ctl policy ex' explain
expect 'mps-ctl policy check --no' --node
expect 'mps-ctl completion z' zsh
expect 'mps-ctl drain g' gpu0.shared
expect 'mps-ctl te' terminate
expect 'mps-ctl terminate 1' 100 1234
expect 'mps-ctl events --instance ' gpu0.shared
expect 'mps-ctl policy show ' --output --socket --help '\*' team-a 'unit:\*' 'unit:dev-\\x2dx'
expect 'mps-ctl policy show *' '\*'
expect 'mps-ctl policy show \*' '\*'
expect 'mps-ctl policy show t' team-a
expect 'mps-ctl admissions --wa' --waiting
expect 'mps-ctl admissions --namespace te' team-a
expect 'mps-ctl shares cr' create
expect 'mps-ctl shares delete s' s1
expect 'mps-ctl shares create --namespace te' team-a
expect 'mps-ctl faults f1' f12
expect 'mps-ctl quarantine re' remove
expect 'mps-ctl quarantine remove q' q3
expect 'mps-ctl quarantine add --namespace te' team-a
expect 'mps-ctl policy show uni' 'unit:\*' 'unit:dev-\\x2dx'
expect 'mps-ctl policy show unit:' '\*' 'dev-\\x2dx'
expect 'mps-ctl policy show unit:dev-\\x' 'dev-\\x2dx'
expect 'mps-ctl policy show "unit:d' 'unit:dev-\x2dx'
expect "mps-ctl policy show '" --output --socket --help '*' team-a 'unit:*' 'unit:dev-\x2dx'
COMP_WORDBREAKS=' '
expect 'mps-ctl policy show unit:d' 'unit:dev-\\x2dx'
)";

}  // namespace

TEST_CASE("the completion of bash, among files that are no answers") {
  const TempDir directory;
  const auto bash = run({"completion", "bash"});
  REQUIRE(bash.status == 0);
  std::ofstream(directory.path() / "test.bash") << bash.out << k_completion_test;
  const auto command = "cd '" + directory.path().string() + "' && bash test.bash";
  CHECK(std::system(command.c_str()) == 0);  // NOLINT(concurrency-mt-unsafe)
}

TEST_CASE("completion scripts of other shells") {
  const auto bash = run({"completion", "bash"}).out;
  CHECK(run({"completion", "zsh"}).out ==
        "#compdef mps-ctl\nautoload -U +X bashcompinit && bashcompinit\n" + bash);
  const auto fish = run({"completion", "fish"}).out;
  CHECK(fish.find("complete -c mps-ctl -n __fish_use_subcommand -a drain -d 'Let no newcomers in; "
                  "running clients may finish'\n") != std::string::npos);
  CHECK(fish.find("complete -c mps-ctl -n '__fish_seen_subcommand_from events' -l follow\n") !=
        std::string::npos);
  CHECK(fish.find("complete -c mps-ctl -n '__fish_seen_subcommand_from policy; and "
                  "__fish_seen_subcommand_from show' -a \"(mps-ctl policy list 2>/dev/null | awk "
                  "'NR>1{if(NF==0)exit;if(\\$1!~/^-\\$/)print \\$1}')\"\n") != std::string::npos);
}
