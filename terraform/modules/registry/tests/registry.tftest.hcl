# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name                      = "distill-test"
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-1", "subnet-2"]
  cluster_security_group_id = "sg-1"
  models_bucket             = "distill-test-models"
}

run "refuses_one_subnet" {
  command = plan

  variables {
    subnet_ids = ["subnet-1"]
  }

  expect_failures = [var.subnet_ids]
}

run "refuses_an_old_postgres" {
  command = plan

  variables {
    postgres_version = "14"
  }

  expect_failures = [var.postgres_version]
}

run "refuses_a_minor_version" {
  command = plan

  variables {
    postgres_version = "17.2"
  }

  expect_failures = [var.postgres_version]
}

run "refuses_an_ec2_type" {
  command = plan

  variables {
    instance_class = "m7i.large"
  }

  expect_failures = [var.instance_class]
}

run "refuses_no_backups" {
  command = plan

  variables {
    backup_days = 0
  }

  expect_failures = [var.backup_days]
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "is_protected_by_default" {
  command = plan

  assert {
    condition     = aws_db_instance.this.deletion_protection && aws_db_instance.this.multi_az && !aws_db_instance.this.skip_final_snapshot
    error_message = "a standby, no deletion by accident, and a snapshot if it is meant"
  }

  assert {
    condition     = aws_db_instance.this.manage_master_user_password && !aws_db_instance.this.publicly_accessible
    error_message = "RDS keeps the password, and nobody outside reaches it"
  }

  assert {
    condition     = output.artifact_root == "s3://distill-test-models/mlflow"
    error_message = "model files go to the models bucket"
  }
}
